# Endpoints whose namespaces others make: a service's, a container's by its process or by its path, as
# README.md in systemd/ has them. Sourced by lifecycle.sh, in the guest.

a_service_with_an_endpoint() {
    write_web
    systemctl start web.service
    in_namespace web ip addr | grep -q 10.244.0.80 || fail "started without its address"
    in_namespace server ping -q -c 1 -W 2 fd00:10:244::80 >/dev/null || fail "no packets"
    wait_for 10 in_namespace server nc -z -w 2 10.244.0.80 8080 || return 1
    # The endpoint is there whatever becomes of the service.
    systemctl restart web.service
    in_namespace server ping -q -c 1 -W 2 10.244.0.80 >/dev/null || fail "no packets to a restarted service"
    wait_for 10 in_namespace server nc -z -w 2 10.244.0.80 8080 || return 1
    rm -r /etc/ciliate/conf.d/50-web.toml /etc/systemd/system/web.service.d
    systemctl stop ciliate-netns@web.service
    expect inactive systemctl is-active web.service
    [ ! -e /run/netns/web ] || fail "the namespace is left"
    rm /etc/systemd/system/web.service
    systemctl daemon-reload
    systemctl reload "$UNIT"
}

# nspawn OPTION…: a container that sleeps
nspawn() {
    systemd-run --quiet --collect --unit=box --service-type=exec systemd-nspawn --quiet --keep-unit "$@" \
        --volatile=yes --directory=/ --machine=box --as-pid2 sleep 600
    wait_for 20 sh -c 'pgrep -fx "sleep 600"'
}

# box LINE: an endpoint for it, which packets reach
box() {
    printf '[[endpoint]]\nname = "box"\n%s\naddresses = ["10.244.0.81", "fd00:10:244::81"]\n' "$1" \
        >/etc/ciliate/conf.d/50-box.toml
    systemctl reload "$UNIT"
    wait_for 10 in_namespace server ping -q -c 1 -W 2 10.244.0.81 || return 1
    in_namespace server ping -q -c 1 -W 2 fd00:10:244::81 >/dev/null || fail "no packets"
}

no_box() {
    rm /etc/ciliate/conf.d/50-box.toml
    systemctl reload "$UNIT"
    systemctl stop box.service
}

# One that systemd-nspawn has given a network namespace of its own, by the process that machinectl names.
a_container_of_nspawn() {
    nspawn --register=yes --private-network
    box "pid = $(machinectl show --property Leader --value box)" || return 1
    expect "$(readlink "/proc/$(pgrep -fx 'sleep 600')/ns/net")" \
        readlink "/proc/$(machinectl show --property Leader --value box)/ns/net"
    no_box
}

# The other way round: a namespace that stays, which nspawn is given, twice.
a_container_of_nspawn_by_path() {
    systemctl start ciliate-netns@box
    nspawn --register=no --network-namespace-path=/run/netns/box
    box 'netns = "/run/netns/box"' || return 1
    expect "$(stat -Lc %i /run/netns/box)" stat -Lc %i "/proc/$(pgrep -fx 'sleep 600')/ns/net"
    systemctl stop box.service
    nspawn --register=no --network-namespace-path=/run/netns/box
    in_namespace server ping -q -c 1 -W 2 10.244.0.81 >/dev/null || fail "no packets to the next container"
    no_box
    systemctl stop ciliate-netns@box
}

# This system's files are on an overlay, where podman's own choice of storage doesn't work.
in_podman() {
    podman --storage-driver vfs --root /root/pods --runroot /run/pods --cgroup-manager cgroupfs "$@"
}

a_container_of_podman() {
    mkdir -p /root/pod
    cp "$(command -v busybox)" /root/pod/busybox
    in_podman run --quiet --detach --cgroups disabled --network none --name pod --rootfs /root/pod \
        /busybox sleep 600 >/dev/null
    printf '[[endpoint]]\nname = "pod"\npid = %s\naddresses = ["10.244.0.82", "fd00:10:244::82"]\n' \
        "$(in_podman inspect --format '{{.State.Pid}}' pod)" >/etc/ciliate/conf.d/50-pod.toml
    systemctl reload "$UNIT"
    wait_for 10 in_namespace server ping -q -c 1 -W 2 10.244.0.82 || return 1
    in_namespace server ping -q -c 1 -W 2 fd00:10:244::82 >/dev/null || fail "no packets"
    # The other way round: a namespace that stays, which podman is given.
    rm /etc/ciliate/conf.d/50-pod.toml
    systemctl reload "$UNIT"
    in_podman rm --force --time 0 pod >/dev/null
    printf '[[endpoint]]\nname = "pod"\nnetns = "/run/netns/pod"\naddresses = ["10.244.0.83", "fd00:10:244::83"]\n' \
        >/etc/ciliate/conf.d/50-pod.toml
    systemctl start ciliate-netns@pod
    expect 0 pod_reaches 10.244.1.10
    expect 0 pod_reaches fd00:10:244:1::10
    rm /etc/ciliate/conf.d/50-pod.toml
    systemctl stop ciliate-netns@pod
    systemctl reload "$UNIT"
    # What podman leaves, which is not to be taken for the package's.
    rm -rf /run/pods /run/libpod /run/crun /etc/cni/net.d/cni.lock /run/containers/networks /run/lock/netavark.lock
    rmdir /run/containers 2>/dev/null || :
}

# How a ping in a container ends.
pod_reaches() {
    in_podman run --quiet --rm --cgroups disabled --cap-add NET_RAW --network ns:/run/netns/pod --rootfs /root/pod \
        /busybox ping -c 1 -W 2 "$1" >/dev/null
    echo $?
}
