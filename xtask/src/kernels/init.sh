#!/bin/busybox sh
# The first process of a guest. Reports go to the second serial line, one a line:
#   TERRARIUM_VM pass|fail|skip NAME DETAIL
#   TERRARIUM_VM probe NAME MECHANISM
#   TERRARIUM_VM done
b=/bin/busybox
# Before busybox's own ip, which knows less.
export PATH=/sbin:/bin HOME=/root

# pivot_root(2) refuses to leave the initial ramfs, so everything moves into a tmpfs first.
if [ "$1" != moved ]; then
	$b mount -t tmpfs -o size=80% tmpfs /new
	for entry in bin dev etc filter init lib lib64 modules proc root run sbin sys tmp usr; do
		[ -e /$entry ] && $b cp -a /$entry /new/
		# switch_root frees the rest; it wants to see /init, and it is in /bin itself.
		[ $entry = lib ] || [ $entry = usr ] && $b rm -rf /$entry
	done
	exec $b switch_root /new /init moved
fi

$b --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname guest

exec 3>/dev/ttyS1
report() { echo "TERRARIUM_VM $*" >&3; }

report boot "$(uname -r)"
while read -r module; do
	insmod "/modules/$module.ko" 2>/dev/null || [ -d "/sys/module/$module" ] ||
		report fail "module-$module" "insmod failed"
done </modules/order
rm -rf /modules

# A Debian for tests of systemd, where the builder had one.
if [ -b /dev/vda ]; then
	mkdir /debian
	if mount -t ext4 -o ro,noload /dev/vda /debian; then
		export TERRARIUM_DIST_BOOTED=/debian
	else
		report fail disk "cannot be mounted"
	fi
fi

now() { cut -d. -f1 /proc/uptime; }

# doctor: its exit code, and its words for the log.
began=$(now)
if terrarium doctor >/tmp/doctor 2>&1; then
	report pass doctor "in $(($(now) - began)) s"
else
	report fail doctor "exit code $?"
fi
cat /tmp/doctor >&3

# Which way each probe is attached, as the observatory itself exports it.
began=$(now)
terrarium observe --listen 127.0.0.1:9750 >/tmp/observe 2>&1 &
observatory=$!
tries=0
until wget -q -O /tmp/metrics http://127.0.0.1:9750/metrics || [ $tries -gt 300 ]; do
	tries=$((tries + 1))
	sleep 0.2
done
if [ -s /tmp/metrics ]; then
	report pass metrics "after $(($(now) - began)) s"
else
	report fail metrics "no answer on /metrics"
	cat /tmp/observe >&3
fi
sed -n 's/^terrarium_probe_attached{\(.*\)} 1$/\1/p' /tmp/metrics | while read -r labels; do
	probe=${labels##*probe=\"}
	mechanism=${labels##*mechanism=\"}
	report probe "${probe%%\"*}" "${mechanism%%\"*}"
done
kill $observatory
wait $observatory
code=$?
[ $code = 0 ] || [ $code = 143 ] || report fail observe "exit code $code after SIGTERM"

# The same end-to-end tests as on the machine that built this.
filter=$(cat /filter)
if [ "$filter" != none ]; then
	export TERRARIUM_BIN=/bin/terrarium TERRARIUM_WORKLOAD=/bin/terrarium-workload
	export TERRARIUM_SKIP_LOG=/tmp/skips RUST_BACKTRACE=0
	# These look at files of the repository or at programs that are not here, not at the kernel.
	skips=
	if [ -z "$filter" ]; then
		for subject in prometheus faq packages page top; do
			skips="$skips --skip $subject::"
		done
	fi
	# shellcheck disable=SC2086
	end-to-end --test-threads=2 $skips $filter >&3 2>&1
	[ -e /tmp/skips ] && while read -r line; do
		report skip "${line%%	*}" "${line#*	}"
	done </tmp/skips
fi

report done
poweroff -f
