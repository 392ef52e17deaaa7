# $1: how many of the package there are now: 1 in an upgrade. The daemon is started anew; packets go on.
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload || :
	if [ "$1" -ge 1 ]; then
		systemctl try-restart ciliated.service || :
	fi
fi
if [ "$1" -eq 0 ]; then
	# The package owns no folders: cargo-generate-rpm 0.21 can't write an entry for one.
	for folder in /usr/lib/ciliate/conf.d /usr/lib/ciliate /usr/share/ciliate /usr/share/licenses/ciliate \
		/usr/share/doc/ciliate/examples /usr/share/doc/ciliate; do
		rmdir "$folder" 2>/dev/null || :
	done
fi
