//! The examples at the end of `--help`. A test has the program take each of them.

pub const RUN: &str = "Examples:
  terrarium run ./rootfs -- sh
  terrarium run --rm -it --memory 64m --pids 100 busybox -- sh
  terrarium run -d --name web -p 8080:80 -v /srv/site:/srv:ro busybox -- httpd -f -h /srv
  terrarium run --explain ./rootfs -- true    each step, its cost, and the same by hand";

pub const PS: &str = "Examples:
  terrarium ps
  terrarium ps --all --filter label=team=blue
  terrarium ps web                            the processes in it";

pub const KILL: &str = "Examples:
  terrarium kill web
  terrarium kill web HUP";

pub const DELETE: &str = "Examples:
  terrarium delete web
  terrarium delete --force web db             ends them first";

pub const GC: &str = "Examples:
  terrarium gc --dry-run                      what a crash has left, and who holds it
  terrarium gc";

pub const OBSERVE: &str = "Examples:
  terrarium observe                           then http://127.0.0.1:9750/ in a browser
  terrarium observe --watch terrarium --probes memory,cgroup
  terrarium observe --events-file events.jsonl --otlp http://127.0.0.1:4318";

pub const EVENTS: &str = "Examples:
  terrarium events --follow
  terrarium events --container web --type mount
  terrarium events --since 10m --errno EPERM --format json";

pub const LEAKS: &str = "Examples:
  terrarium leaks web --suggest               what is open, with evidence, and what closes it
  terrarium leaks --all --fail-on medium --format sarif
  terrarium leaks --explain host-filesystem-mounted";

pub const DOCTOR: &str = "Examples:
  terrarium doctor
  terrarium doctor --format json --attach tracepoint";

pub const SELFTEST: &str = "Examples:
  terrarium selftest                          is every counter exact on this machine?
  terrarium selftest --format json";

pub const PAUSE: &str = "Examples:
  terrarium pause web";

pub const RESUME: &str = "Examples:
  terrarium resume web";

pub const STOP: &str = "Examples:
  terrarium stop web
  terrarium stop --time 30 web db";

pub const RESTART: &str = "Examples:
  terrarium restart web";

pub const RENAME: &str = "Examples:
  terrarium rename web old-web";

pub const WAIT: &str = "Examples:
  terrarium wait web                          prints its exit code when it ends";

pub const LOGS: &str = "Examples:
  terrarium logs --follow web
  terrarium logs --tail 100 web";

pub const INSPECT: &str = "Examples:
  terrarium inspect web
  terrarium inspect --format '{{.pid}} {{.network.address}}' web";

pub const PRUNE: &str = "Examples:
  terrarium prune
  terrarium prune --force                     without a question";

pub const STATS: &str = "Examples:
  terrarium stats
  terrarium stats --no-stream --format json web";

pub const NAMESPACES: &str = "Examples:
  terrarium namespaces                        who shares what with whom
  terrarium namespaces --tree --kind pid";

pub const NETWORK: &str = "Examples:
  terrarium network create backend --subnet 10.90.0.0/24 --internal
  terrarium run --net bridge:backend busybox -- ip addr
  terrarium network list
  terrarium network remove backend";

pub const IMAGE: &str = "Examples:
  terrarium image import rootfs.tar.gz mine:1
  terrarium image list
  terrarium run mine:1 -- sh
  terrarium image prune";

pub const CREATE: &str = "Examples:
  terrarium create --bundle ./bundle web
  terrarium start web";

pub const START: &str = "Examples:
  terrarium start web";

pub const STATE: &str = "Examples:
  terrarium state web";

pub const LIST: &str = "Examples:
  terrarium list --format json
  terrarium list --quiet";

pub const SPEC: &str = "Examples:
  terrarium spec --bundle ./bundle            writes a config.json there
  terrarium spec --rootless";

pub const FEATURES: &str = "Examples:
  terrarium features";

pub const COMPLETIONS: &str = "Examples:
  terrarium completions bash > /usr/share/bash-completion/completions/terrarium";

pub const MAN: &str = "Examples:
  terrarium man /usr/local/share/man/man1";
