#!/usr/bin/env bash
# Hosts on one machine that share its disk and nothing else: 10.0.0.1, 10.0.0.2 and so on, each with its own network,
# processes, home, /tmp and /dev/shm, and with an SSH server for root. Needs root. Run it as
#
#   unshare --net --mount --pid --fork --kill-child --mount-proc tests/cluster/hosts.sh FOLDER NUMBER
#
# All of it ends with that command, and nothing was changed outside it. FOLDER, which may not be below another host's
# home, is seen by all of them; it must hold an empty `home`, and homes `1`, `2` ..., which the hosts see as `home`; and
# `key.pub`, the key that is let in, and `host_key`, that of the servers. Whoever is in the same network
# (`nsenter --net=/proc/PID/ns/net`) is 10.0.0.254.
set -euo pipefail
folder=$1 number=$2

ip link set lo up
ip link add hosts type bridge
ip addr add 10.0.0.254/24 dev hosts
ip link set hosts up
mount -t tmpfs none /run
mkdir /run/netns /run/sshd

for host in $(seq "$number"); do
  ip netns add "$host"
  ip link add "host$host" type veth peer name eth0 netns "$host"
  ip link set "host$host" master hosts up
  ip -n "$host" addr add "10.0.0.$host/24" dev eth0
  ip -n "$host" link set eth0 up
  ip -n "$host" link set lo up
  ip -n "$host" route add default via 10.0.0.254 # leads nowhere, but Ray finds its own address by it
  ip netns exec "$host" unshare --mount --uts --pid --fork --kill-child --mount-proc bash -euc '
    folder=$1 host=$2
    hostname "host$host"
    sed "s|^root:.*|root:x:0:0:root:$folder/home:/bin/bash|" /etc/passwd > "$folder/passwd$host"
    mount --bind "$folder/passwd$host" /etc/passwd
    mount --bind "$folder/$host" "$folder/home"
    mount --bind "$folder" /mnt
    mount --bind "$folder/home" /mnt/home
    mount -t tmpfs none /dev/shm
    mount -t tmpfs none /tmp
    mkdir -p "$folder"
    mount --rbind /mnt "$folder"
    exec "$(command -v sshd)" -D -e -f /dev/null -h "$folder/host_key" -o "AuthorizedKeysFile=$folder/key.pub" \
      -o StrictModes=no -o UsePAM=no -o PidFile=none
  ' host "$folder" "$host" 2> "$folder/sshd$host.log" &
done
wait
