# $1: how many of the package there are now: 1 in an upgrade.
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload || :
	if [ "$1" -ge 1 ]; then
		systemctl try-restart ciliate-kubernetes.service || :
	fi
fi
if [ "$1" -eq 0 ]; then
	# The package owns no folders: cargo-generate-rpm 0.21 can't write an entry for one.
	for folder in /usr/share/ciliate-kubernetes /usr/share/licenses/ciliate-kubernetes \
		/usr/share/doc/ciliate-kubernetes; do
		rmdir "$folder" 2>/dev/null || :
	done
fi
