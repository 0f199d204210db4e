#!/bin/bash
# A Slurm cluster of two nodes on this machine, and one command on its login node.
#
#   slurm_box.sh FOLDER COMMAND...
#
# It needs root, and Debian's packages slurmctld, slurmd, slurm-client, munge and iproute2. Each node has its own processes,
# network, host name and Ray folder. The nodes share the disk, as the nodes of a real cluster share a file system. They can
# reach no outside address. When COMMAND ends, the cluster ends, and this script returns COMMAND's exit code.
set -euo pipefail

node() {  # runs in the namespaces of one node
  mount -t tmpfs tmpfs "$BOX/ray"
  mount -t tmpfs tmpfs /sys/fs/cgroup  # slurmd needs the folder, though nothing here uses control groups
  mkdir -p "$BOX/spool.$1"
  hostname "$1"
  ip link set lo up
  ip address add "$2/24" dev eth0
  ip link set eth0 up
  ip route add default via 10.77.0.1
  slurmd -D -N "$1" -f "$SLURM_CONF" > "$BOX/slurmd.$1.out" 2>&1 &
  wait  # this shell is the namespace's first process, so it must collect the processes that `ray stop` ends
}

login() {
  local name address
  mount -t tmpfs tmpfs /run
  mount --bind "$BOX/hosts" /etc/hosts
  hostname login
  ip link set lo up
  ip link add br0 type bridge
  ip address add 10.77.0.1/24 dev br0
  ip link set br0 up

  mkdir -p "$BOX/munge" /run/munge
  head -c 128 /dev/urandom > "$BOX/munge/key"
  chmod 700 "$BOX/munge"; chmod 600 "$BOX/munge/key"
  munged --force --key-file="$BOX/munge/key" --seed-file="$BOX/munge/seed" --log-file="$BOX/munge/log" \
    --pid-file=/run/munge/pid --socket=/run/munge/munge.socket.2
  slurmctld -f "$SLURM_CONF"

  for name in node1 node2; do
    address=10.77.0.1${name#node}
    ip netns add "$name"
    ip link add "to_$name" type veth peer name eth0 netns "$name"
    ip link set "to_$name" master br0 up
    ip netns exec "$name" unshare --pid --fork --kill-child --mount --mount-proc --uts "$0" --node "$name" "$address" &
  done
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] && break
    sleep 0.5
  done
  [ "$(sinfo --noheader --states=idle --format=%D)" = 2 ] || { sinfo; tail "$BOX"/slurm*.out "$BOX"/*.log; exit 1; } >&2
  "$@"
}

case ${1:-} in
  --node) shift; node "$@"; exit ;;
  --login) shift; login "$@"; exit ;;
esac

BOX=$(realpath "$1"); shift
export BOX SLURM_CONF=$BOX/slurm.conf
mkdir -p "$BOX/state" "$BOX/ray"
printf '%s\n' '127.0.0.1 localhost' '10.77.0.1 login' '10.77.0.11 node1' '10.77.0.12 node2' > "$BOX/hosts"
echo CgroupPlugin=cgroup/v1 > "$BOX/cgroup.conf"
cat > "$SLURM_CONF" <<CONF
ClusterName=box
SlurmctldHost=login(10.77.0.1)
SlurmUser=root
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=$BOX/slurmd.%n.pid
SlurmctldLogFile=$BOX/slurmctld.log
SlurmdLogFile=$BOX/slurmd.%n.log
StateSaveLocation=$BOX/state
SlurmdSpoolDir=$BOX/spool.%n
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=node1 NodeAddr=10.77.0.11 NodeHostname=node1 CPUs=2
NodeName=node2 NodeAddr=10.77.0.12 NodeHostname=node2 CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
exec unshare --pid --fork --kill-child --mount --mount-proc --net --uts "$0" --login "$@"
