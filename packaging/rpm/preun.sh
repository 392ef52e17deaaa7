# $1: how many of the package there will be: 0 for a removal. It stops the daemon and leaves what that made:
# packets go on. `ciliate destroy` before it removes everything.
if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable ciliated.service || :
	if [ -d /run/systemd/system ]; then
		systemctl stop ciliated.service || :
	fi
fi
