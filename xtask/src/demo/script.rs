//! What the demo's container does.

/// Where the script lies inside.
pub const PATH: &str = "/tmp/life.sh";

/// The programs of busybox that it uses.
pub const APPLETS: &[&str] = &[
    "awk", "cat", "echo", "head", "hostname", "ip", "mkdir", "mount", "nsenter", "ping", "ps",
    "sed", "sh", "sleep", "tail", "true", "umount", "unshare", "wc",
];

/// The script. The numbers are known, so that the table of counts can be read against it.
pub const TEXT: &str = r#"
say() { echo "$(echo "$1                " | head -c 16) $2"; }

say "hostname" "$(hostname)"
say "processes" "$(ps -o pid | tail -n +2 | wc -l), of which this shell is number $$"
say "address" "$(ip -4 addr show eth0 | awk '/inet/ {print $2}')"
gateway=$(ip route | awk '/^default/ {print $3}')
say "gateway" "$gateway, $(ping -c 3 -i 0.1 "$gateway" | sed -n 's/ packets//g;/transmitted/p')"

i=0
while [ $i -lt 100 ]; do
	(:)
	i=$((i + 1))
done
say "fork" "100 times"

mkdir -p /tmp/m
for i in 1 2 3 4 5; do
	mount -t tmpfs tmpfs /tmp/m && umount /tmp/m
done
say "mount" "a tmpfs, 5 times, and unmounted it"

unshare -u sh -c 'hostname inner; echo $$ >/tmp/pid; sleep 600' &
while [ ! -s /tmp/pid ]; do sleep 0.02; done
sleep 0.1
say "unshare" "a uts namespace, in which a hostname is set"
say "setns" "into it: the hostname there is $(nsenter -t "$(cat /tmp/pid)" -u hostname)"

say "memory" "asks for 64 MiB of the 32 that it may have"
# Before the memory of the first is given back the kernel may look for another: it is not to be this shell.
( echo 1000 >/proc/self/oom_score_adj; head -c 64m /dev/zero | tail >/dev/null )
say "" "the kernel's OOM killer: exit code $? (128 + SIGKILL)"

echo .
read -r end
exit 0
"#;

/// The line after which the script has done everything. It then waits until its standard input ends.
pub const DONE: &str = ".";
