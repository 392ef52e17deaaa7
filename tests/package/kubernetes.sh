# A node whose configuration is all from Kubernetes, by the package ciliate-kubernetes. The API server is made of
# files, by busybox: it answers lists, and on its watches nothing happens. Sourced by lifecycle.sh, in the guest.

readonly ADAPTER=ciliate-kubernetes.service

# list NAME ITEMS
list() {
    printf '{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[%s]}\n' "$2" \
        >"/root/api/$1.json"
}

# node NAME ADDRESS CIDRS
node() {
    printf '{"metadata":{"name":"%s"},"spec":{"podCIDRs":[%s]},"status":{"addresses":[{"type":"InternalIP","address":"%s"}]}}' \
        "$1" "$3" "$2"
}

make_api() {
    mkdir -p /root/api/cgi-bin
    cat >/root/api/cgi-bin/k <<'END'
#!/bin/sh
printf 'Content-Type: application/json\r\n\r\n'
case $QUERY_STRING in *watch=*) exec sleep 30 ;; esac
cat "/root/api/${PATH_INFO##*/}.json"
END
    chmod 755 /root/api/cgi-bin/k
    local of='"namespace":"default"'
    list nodes "$(node node-a 172.18.0.3 '"10.244.0.0/24","fd00:10:244::/80"'),$(
        node node-b 172.18.0.2 '"10.244.1.0/24","fd00:10:244:1::/80"')"
    list namespaces '{"metadata":{"name":"default"}}'
    list services "{\"metadata\":{\"name\":\"web\",$of},\"spec\":{\"clusterIPs\":[\"10.96.0.10\"],\"ports\":[{\"port\":80}]}}"
    list endpointslices "{\"metadata\":{\"name\":\"web-x\",$of,\"labels\":{\"kubernetes.io/service-name\":\"web\"}},
        \"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"10.244.1.10\"]}],\"ports\":[{\"name\":\"\",\"port\":8080}]}"
    list pods "{\"metadata\":{\"name\":\"pod\",$of,\"uid\":\"31266e4a\"},\"spec\":{\"nodeName\":\"node-a\",\"containers\":[]},
        \"status\":{\"phase\":\"Running\",\"podIPs\":[{\"ip\":\"10.244.0.20\"},{\"ip\":\"fd00:10:244::20\"}]}}"
}

# The API, what stands behind the service, and the hand-over of a pod's namespace as a container runtime does it.
make_cluster() {
    make_api
    cat >/etc/systemd/system/api.service <<'END'
[Unit]
After=wire.service
[Service]
ExecStart=busybox httpd -f -p 127.0.0.1:8001 -h /root/api
[Install]
WantedBy=multi-user.target
END
    cat >/etc/systemd/system/backend.service <<'END'
[Unit]
After=wire.service
[Service]
ExecStart=nsenter --net=/run/netns/server nc -l -k 8080
[Install]
WantedBy=multi-user.target
END
    cat >/etc/systemd/system/pod.service <<'END'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip netns add pod
ExecStart=mkdir -p /run/ciliate/sandboxes
ExecStart=ln -sfn /run/netns/pod /run/ciliate/sandboxes/31266e4a
ExecStop=ip netns delete pod
[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
}

write_kubeconfig() {
    mkdir -p /etc/ciliate
    # As every kubeconfig it names who signs the server's certificate: this one nobody, and nothing is signed.
    cat >/etc/ciliate/kubeconfig <<'END'
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: abc}}]
clusters:
  - name: c
    cluster:
      server: "http://127.0.0.1:8001/cgi-bin/k"
      certificate-authority-data: "\
        LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJjVENDQVJlZ0F3SUJBZ0lVTm45cUFYd21Odmo3L3A2TVZGYkNjNS9YRkU0\
        d0NnWUlLb1pJemowRUF3SXcKRFRFTE1Ba0dBMVVFQXd3Q1kyRXdJQmNOTWpZeE1USXhNVGswTVRRM1doZ1BNakV5TmpFd01qZ3hP\
        VFF4TkRkYQpNQTB4Q3pBSkJnTlZCQU1NQW1OaE1Ga3dFd1lIS29aSXpqMENBUVlJS29aSXpqMERBUWNEUWdBRWs2MkZqbVExClVx\
        T2dKdVNWSEg0Z1UxZUVNVnpUSFZZT2RuZDJERGRTN2tSWGR4QjBKbTZGay8xTlZ0WnpEYWQ1VlNPdFlkU1kKTTd6QmxDY1Zld1VL\
        bnFOVE1GRXdIUVlEVlIwT0JCWUVGS0t1S0haUTN6NXRycHFuQUt4OHY2OXVRS1lTTUI4RwpBMVVkSXdRWU1CYUFGS0t1S0haUTN6\
        NXRycHFuQUt4OHY2OXVRS1lTTUE4R0ExVWRFd0VCL3dRRk1BTUJBZjh3CkNnWUlLb1pJemowRUF3SURTQUF3UlFJZ2Z5WlpabmE2\
        bytndVNYWHhPZHBUeW5zV1JkSXJsOUN6YzljUDNITTQKbUtjQ0lRQ3c4eHRUbUpuTWtIOEYydE93U2hjdW9MdEVpTHdJbzZZZERX\
        Mlk3OG53Snc9PQotLS0tLUVORCBDRVJUSUZJQ0FURS0tLS0tCg=="
END
}

install_both() {
    dpkg -i "$debs/one.deb" "$debs/kubernetes.deb" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
}

pod_reaches_the_service() {
    in_namespace pod nc -z -w 2 10.96.0.10 80
}

kubernetes_alone_configures_it() {
    make_cluster
    systemctl start api backend
    files >/tmp/files-before-kubernetes
    install_both
    # Without a kubeconfig both are quietly inactive.
    expect enabled systemctl is-enabled "$ADAPTER"
    expect $'inactive\ninactive' systemctl is-active "$ADAPTER" "$UNIT"
    expect '' systemctl --failed --no-legend
    expect '' systemd-analyze verify --man=yes /usr/lib/systemd/system/ciliate-kubernetes.{service,path,target} 2>&1
    systemctl start pod
    write_kubeconfig
    systemctl start "$ADAPTER"
    wait_for 30 systemctl is-active "$UNIT"
    wait_for 30 pod_reaches_the_service
    in_namespace pod ping -q -c 1 -W 2 fd00:10:244:1::10 >/dev/null || fail "no packets by IPv6"
    wait_for 10 adapter_says '4 files of 1 endpointslices, 1 namespaces, 2 nodes, 1 pods, 1 services; 0 things left out'
    expect 'No changes.' ciliate plan
    # Who stops the daemon is not contradicted, also when the adapter is started anew.
    systemctl stop "$UNIT"
    systemctl restart "$ADAPTER"
    wait_for 10 adapter_says '4 files of 1 endpointslices, 1 namespaces, 2 nodes, 1 pods, 1 services; 0 things left out'
    expect inactive systemctl is-active "$UNIT"
    pod_reaches_the_service || fail "stopped, and no packets"
    systemctl start "$UNIT"
}

adapter_says() {
    [ "$(systemctl show --property StatusText --value "$ADAPTER")" = "$1" ]
}

# Removed, the files are the last good ones; purged, they are gone, and what somebody else has put there is not.
kubernetes_removed_and_purged() {
    local folder=/run/ciliate/conf.d
    dpkg -r ciliate-kubernetes >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    expect 4 sh -c "ls $folder | wc -l"
    systemctl restart "$UNIT"
    pod_reaches_the_service || fail "removed, and no packets"
    echo '# by hand' >$folder/kubernetes-service-mine.toml
    dpkg -P ciliate-kubernetes >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    expect kubernetes-service-mine.toml ls $folder
    [ ! -e /etc/ciliate/kubeconfig ] || fail "the kubeconfig is left"
    dpkg -P ciliate >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; return 1; }
    systemctl stop pod
    files | diff /tmp/files-before-kubernetes - || fail "files are left or gone"
    # For the next boot.
    install_both
    write_kubeconfig
    systemctl enable --quiet api backend pod
}

kubernetes_alone_configures_it_at_boot() {
    wait_for 60 systemctl is-active "$UNIT"
    wait_for 30 pod_reaches_the_service
    ! journalctl -b -q -o cat -g 'ordering cycle' || fail "units wait for each other"
    expect active systemctl is-active network-online.target
}
