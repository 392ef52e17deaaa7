# $1: how many of the package there are now: 1 for an installation, 2 in an upgrade.
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
	systemctl --no-reload preset ciliate-kubernetes.service || :
fi
