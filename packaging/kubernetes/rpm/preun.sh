# $1: how many of the package there will be: 0 for a removal. What it wrote stays: it is the last good configuration.
if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable ciliate-kubernetes.service || :
	if [ -d /run/systemd/system ]; then
		systemctl stop ciliate-kubernetes.service ciliate-kubernetes.path || :
	fi
fi
