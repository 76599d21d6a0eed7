#!/bin/bash
# A single-node Ceph object store for tests: one mon, one osd, one radosgw, all on loopback.
#
#   ceph_rgw.sh start DIR PORT       make (first time) and start everything below DIR
#   ceph_rgw.sh start-rgw DIR PORT   start the gateway alone, after it was killed
#   ceph_rgw.sh stop DIR PORT        end what was started, by the pids that were written down
#
# Needs: apt-get install -y --no-install-recommends ceph-mon ceph-mgr ceph-osd radosgw
# Users testaccess / testsecretkey and otheraccess / othersecretkey. PORT is the gateway's; PORT+1 and PORT+2 are the mon's, the osd
# takes some of 6800-7568. No mgr, no cephx, no systemd: nothing outside DIR is touched.
set -eu
verb=$1 dir=$2 port=$3
conf=$dir/ceph.conf

configure() {
  # ms mon client mode: the default ("secure") hangs without cephx. tcp_nodelay: 40 ms a GET
  # otherwise. osd client watch timeout: a killed gateway's watch blocks bucket creation longer.
  cat > "$conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
mon initial members = a
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = $dir/run
admin socket = $dir/run/\$name.asok
log file = $dir/log/\$name.log
crash dir = $dir/log
pid file =
keyring = $dir/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 1
mon max pg per osd = 1000
debug ms = 0
[mon]
public addr =
mon data = $dir/mon
[osd]
osd data = $dir/osd
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 134217728
osd memory target = 939524096
osd op num shards = 2
osd client watch timeout = 3
[client.rgw.a]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw run sync thread = false
rgw enable apis = s3, admin
rgw thread pool size = 64
CONF
  printf '[client.admin]\n\tkey = AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n' > "$dir/keyring"
}

spawn() { # name command...: in the background, its pid written down
  name=$1; shift
  setsid "$@" -c "$conf" -f > "$dir/log/$name.out" 2>&1 < /dev/null &
  echo $! > "$dir/$name.pid"
}

wait_for_gateway() {
  for _ in $(seq 1200); do
    if curl -s -o /dev/null "http://127.0.0.1:$port/"; then return 0; fi
    sleep 0.05
  done
  echo "radosgw does not answer; see $dir/log" >&2
  return 1
}

stop() {
  for name in rgw osd mon; do
    if [ -f "$dir/$name.pid" ]; then
      kill -KILL "$(cat "$dir/$name.pid")" 2> /dev/null || true
      rm -f "$dir/$name.pid"
    fi
  done
}

start() {
  first=no
  if [ ! -f "$conf" ]; then
    first=yes
    mkdir -p "$dir/mon" "$dir/osd" "$dir/run" "$dir/log" "$dir/rgw"
    fsid=$(cat /proc/sys/kernel/random/uuid)
    configure
    monmaptool --create --clobber --fsid "$fsid" \
      --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]" "$dir/monmap" > /dev/null
    ceph-mon -c "$conf" -i a --mkfs --monmap "$dir/monmap"
  fi
  spawn mon ceph-mon -i a
  if [ $first = yes ]; then
    osd_id=$(cat /proc/sys/kernel/random/uuid)
    ceph -c "$conf" --connect-timeout 20 osd new "$osd_id" 0 > /dev/null
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$osd_id" > "$dir/log/osd-mkfs.out" 2>&1
  fi
  spawn osd ceph-osd -i 0
  spawn rgw radosgw -n client.rgw.a
  wait_for_gateway
  if [ $first = yes ]; then
    for user in test other; do
      radosgw-admin -c "$conf" -n client.rgw.a user create --uid=$user --display-name=$user \
        --access-key=${user}access --secret=${user}secretkey > "$dir/log/user-$user.out" 2>&1
    done
  fi
}

case $verb in
  start) start ;;
  start-rgw) spawn rgw radosgw -n client.rgw.a; wait_for_gateway ;;
  stop) stop ;;
  *) echo "usage: ceph_rgw.sh start|start-rgw|stop DIR PORT" >&2; exit 2 ;;
esac
