//! Bridges, addresses, routes, and who reaches whom.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use terrarium_tests::{NetworkNamespace, Running, TestBed, repeats, require, rootfs};

const BRIDGE: [&str; 2] = ["--net", "bridge"];

/// A server in `namespace` on a free port of every address that greets `count` clients with their address.
fn greet(namespace: &NetworkNamespace, count: usize) -> u16 {
    let listener = namespace.enter(|| {
        // That of IPv6 takes IPv4 as well, where the kernel has both.
        TcpListener::bind("[::]:0")
            .or_else(|_| TcpListener::bind("0.0.0.0:0"))
            .expect("a port is free")
    });
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(count).flatten() {
            let peer = stream.peer_addr().expect("it is connected").ip().to_canonical();
            // The client asserts what it has read.
            let _ = writeln!(stream, "hello {peer}");
        }
    });
    port
}

/// The container's address without the length of its prefix, as state.json has it.
fn address(container: &Running<'_>) -> String {
    let state = container.state();
    let address = state["network"]["address"].as_str().unwrap_or_default();
    address.split('/').next().unwrap_or_default().to_owned()
}

fn gateway(container: &Running<'_>) -> String {
    container.state()["network"]["gateway"].as_str().unwrap_or_default().to_owned()
}

fn reached(answer: &Value) -> Result<&str, &Value> {
    if answer["reached"] == true {
        Ok(answer["text"].as_str().unwrap_or_default())
    } else {
        Err(answer)
    }
}

#[test]
fn two_containers_on_the_bridge_reach_each_other_and_the_gateway() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut one = bed.container("one").with(BRIDGE).follow();
    let mut two = bed.container("two").with(BRIDGE).follow();
    let (address_one, address_two) = (address(&one), address(&two));
    assert_ne!(address_one, address_two);
    let gateway = gateway(&one);

    let port = &one.call("serve 0")["port"];
    let answer = two.call(&format!("connect {address_one} {port}"));
    assert_eq!(reached(&answer), Ok(format!("hello {address_two}").as_str()));
    let port = &two.call("serve 0")["port"];
    let answer = one.call(&format!("connect {address_two} {port}"));
    assert_eq!(reached(&answer), Ok(format!("hello {address_one}").as_str()));

    let port = greet(bed.network(), 2);
    for (container, address) in [(&mut one, &address_one), (&mut two, &address_two)] {
        let answer = container.call(&format!("connect {gateway} {port}"));
        assert_eq!(reached(&answer), Ok(format!("hello {address}").as_str()));
    }
    let answer = one.call(&format!("run ping -c 1 -W 2 {gateway}"));
    assert_eq!(answer["code"], 0, "{answer}");

    let children = one.call("run true");
    assert_eq!(children["code"], 0);
}

#[test]
fn a_container_on_the_bridge_has_lo_an_address_and_a_default_route() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let mut container = bed.container("addressed").with(BRIDGE).follow();
    let state = container.state();
    let seen = container.call("interfaces");

    let links = seen["links"].as_object().expect("interfaces lists links");
    assert_eq!(links.keys().collect::<Vec<_>>(), ["eth0", "lo"]);
    assert_eq!(links["lo"]["up"], true);
    assert_eq!(links["lo"]["addresses"][0], "127.0.0.1/8");
    assert_eq!(links["eth0"]["up"], true);
    assert_eq!(links["eth0"]["addresses"][0], state["network"]["address"]);
    let default = seen["routes"]
        .as_array()
        .and_then(|routes| routes.iter().find(|route| route["mask"] == "0.0.0.0"))
        .unwrap_or_else(|| panic!("no default route in {seen}"));
    assert_eq!(default["device"], "eth0");
    assert_eq!(default["gateway"], state["network"]["gateway"]);
}

#[test]
fn the_hosts_end_of_the_veth_lives_as_long_as_the_container() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let container = bed.container("veth").with(BRIDGE).follow();
    let state = container.state();
    let veth = state["network"]["veth"].as_str().expect("state.json names the veth").to_owned();
    let bridge = state["network"]["bridge"].as_str().expect("state.json names the bridge");
    assert!(bed.network().links().contains(&veth));
    let link: Value = serde_json::from_str(&bed.network().ip(&["-json", "link", "show", &veth]))
        .expect("ip -json prints JSON");
    assert_eq!(link[0]["master"], bridge);
    assert_eq!(container.finish().code, 0);
    bed.assert_nothing_left();
    assert!(!bed.network().links().contains(&veth));
}

#[test]
fn containers_of_different_networks_do_not_reach_each_other() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let other = ["--net", "bridge:other0", "--subnet", "10.88.0.0/24"];
    let mut one = bed.container("one").with(BRIDGE).follow();
    let mut two = bed.container("two").with(other).follow();
    let mut friend = bed.container("friend").with(other).follow();
    let address_two = address(&two);
    assert!(address_two.starts_with("10.88.0."), "{address_two}");
    let port = &two.call("serve 0")["port"];
    let instruction = format!("connect {address_two} {port}");
    assert!(reached(&friend.call(&instruction)).is_ok(), "within one network it is reached");
    let answer = one.call(&instruction);
    assert!(reached(&answer).is_err(), "from another network: {answer}");
    let port = greet(bed.network(), 1);
    let own = format!("connect {} {port}", gateway(&one));
    assert!(reached(&one.call(&own)).is_ok(), "its own gateway is reached");
}

#[test]
fn without_a_network_there_is_only_lo() {
    require!(Root, Program("busybox"));
    let bed = TestBed::new();
    let mut container = bed.container("alone").with(["--net", "none"]).follow();
    let seen = container.call("interfaces");
    let links = seen["links"].as_object().expect("interfaces lists links");
    assert_eq!(links.keys().collect::<Vec<_>>(), ["lo"]);
    assert_eq!(links["lo"]["up"], true);
    assert_eq!(seen["routes"], serde_json::json!([]));
    assert_eq!(bed.network().links(), ["lo"]);
}

#[test]
fn on_the_hosts_network_it_sees_what_the_host_sees() {
    require!(Root, Program("busybox"), Program("ip"));
    let mut bed = TestBed::new();
    bed.network().ip(&["link", "add", "seen0", "type", "bridge"]);
    bed.expect_links();
    let outcome =
        bed.container("host").with(["--net", "host"]).run(["ls", "/proc/self/net/dev_snmp6"]);
    assert_eq!(outcome.success(), "lo\nseen0\n");
}

#[test]
fn what_lies_behind_the_host_is_reached_with_the_hosts_address() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let mut bed = TestBed::new();
    let upstream = upstream(&mut bed);
    bed.network().ip(&["route", "add", "default", "via", "192.0.2.2"]);
    let port = greet(&upstream, 1);

    let mut container = bed.container("out").with(BRIDGE).follow();
    // The upstream has no route to the bridge's network: an answer means that the address was translated.
    let answer = container.call(&format!("connect 192.0.2.2 {port}"));
    assert_eq!(reached(&answer), Ok("hello 192.0.2.1"));
    drop(container);
    bed.assert_nothing_left();
}

#[test]
fn a_container_that_only_runs_true_leaves_no_trace_of_its_network() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    for _ in 0..3 {
        bed.container("again").with(BRIDGE).run([rootfs::WORKLOAD, "true"]).success();
        bed.assert_nothing_left();
    }
}

/// What lies behind the host: a namespace with 192.0.2.2, where the host has 192.0.2.1.
fn upstream(bed: &mut TestBed) -> NetworkNamespace {
    let upstream = NetworkNamespace::new();
    bed.network().connect("up0", &upstream, "up1");
    bed.network().ip(&["address", "add", "192.0.2.1/24", "dev", "up0"]);
    upstream.ip(&["address", "add", "192.0.2.2/24", "dev", "up1"]);
    bed.expect_links();
    upstream
}

/// What a server says to a client in `namespace`; none where it is not reached.
fn hear(namespace: &NetworkNamespace, server: &str) -> Option<String> {
    let server: SocketAddr = server.parse().expect("a test's address is right");
    namespace.enter(|| {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    })
}

#[test]
fn a_published_port_leads_to_its_container_from_everywhere() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let mut bed = TestBed::new();
    let outside = upstream(&mut bed);

    let mut web = bed.container("web").with(BRIDGE).with(["-p", "8080:80"]).follow();
    let mut neighbour = bed.container("neighbour").with(BRIDGE).follow();
    assert_eq!(web.call("serve 80")["port"], 80);
    let state = web.state();
    assert_eq!(state["network"]["ports"][0], "0.0.0.0:8080->80/tcp");
    assert_eq!(bed.run(["port", web.name()]).success(), "80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(bed.run(["port", web.name(), "80"]).success(), "0.0.0.0:8080\n");
    assert_eq!(bed.run(["port", web.name(), "80/udp"]).code, 1);
    let gateway = gateway(&web);
    let greeting = |client: &str| Some(format!("hello {client}"));
    assert_eq!(hear(&outside, "192.0.2.1:8080"), greeting("192.0.2.2"), "from outside");
    assert_eq!(hear(bed.network(), "192.0.2.1:8080"), greeting("192.0.2.1"), "from the host");
    assert_eq!(hear(bed.network(), "127.0.0.1:8080"), greeting(&gateway), "by its loopback");
    let answer = neighbour.call("connect 192.0.2.1 8080");
    assert_eq!(reached(&answer), Ok(format!("hello {gateway}").as_str()), "from a neighbour");

    // What opens the loopback to the port does not open it to containers.
    let port = {
        let listener =
            bed.network().enter(|| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let port = listener.local_addr().expect("it is bound").port();
        neighbour.call("run ip route add 127.0.0.2/32 via 10.77.0.1");
        assert!(reached(&neighbour.call(&format!("connect 127.0.0.2 {port}"))).is_err());
        port
    };
    assert_ne!(port, 0);

    drop(web);
    assert_eq!(hear(&outside, "192.0.2.1:8080"), None, "it is gone with its container");
    drop(neighbour);
    bed.assert_nothing_left();
}

#[test]
fn a_port_that_somebody_has_is_refused() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let first = bed.container("first").with(BRIDGE).with(["-p", "127.0.0.1:8080:80"]).follow();
    let refused =
        |ports: &str| bed.container("second").with(BRIDGE).with(["-p", ports]).run(["true"]);
    let outcome = refused("8080:81");
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(
        outcome.stderr.contains(&format!("container {} has published it", first.name())),
        "{outcome:?}"
    );
    assert_eq!(refused("127.0.0.1:8080:81/udp").code, 0, "another protocol");
    let elsewhere = ["--net", "bridge:other0", "--subnet", "10.88.0.0/24", "-p", "8080:80"];
    let outcome = bed.container("third").with(elsewhere).run(["true"]);
    assert!(outcome.code == 125 && outcome.stderr.contains("has published it"), "{outcome:?}");

    let listener =
        bed.network().enter(|| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let port = listener.local_addr().expect("it is bound").port();
    let outcome = refused(&format!("{port}:80"));
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("a program of the host listens there"), "{outcome:?}");
    assert_eq!(refused("8080:80-81").code, 2, "ranges of different lengths");

    let alone = bed.container("alone").with(["-p", "81:80"]).run(["true"]);
    assert!(alone.code == 2 && alone.stderr.contains("--publish"), "{alone:?}");
    drop(first);
    bed.assert_nothing_left();
}

#[test]
fn rules_of_others_stay_as_they_are() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let rules = "add table ip theirs; add chain ip theirs forward { type filter hook forward priority 0; policy accept; }; \
                 add rule ip theirs forward tcp dport 9 counter packets 0 bytes 0 drop";
    bed.network().run("nft", &[rules]).success();
    let theirs = || bed.network().run("nft", &["list", "table", "ip", "theirs"]).success();
    let before = theirs();
    let mut container = bed.container("guest").with(BRIDGE).with(["-p", "8081:80"]).follow();
    container.call("true");
    assert_eq!(theirs(), before);
    drop(container);
    assert_eq!(bed.network().nft_ruleset().trim(), before.trim(), "and nothing else is left");
    bed.network().run("nft", &["delete", "table", "ip", "theirs"]).success();
}

#[test]
fn a_network_that_was_created_stays_until_it_is_removed() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let create =
        ["network", "create", "--subnet", "10.91.0.0/24", "--gateway", "10.91.0.9", "made0"];
    assert_eq!(bed.run(create).success(), "made0\n");
    assert_eq!(bed.run(create).code, 1, "there is one");
    let overlap = bed.run(["network", "create", "--subnet", "10.91.0.0/16", "made1"]);
    assert!(
        overlap.code == 1 && overlap.stderr.contains("network made0 has 10.91.0.0/24"),
        "{overlap:?}"
    );

    let net = ["--net", "bridge:made0"];
    for _ in 0..2 {
        let mut container = bed.container("member").with(net).with(["--ip", "10.91.0.5"]).follow();
        let state = container.state();
        assert_eq!(state["network"]["gateway"], "10.91.0.9");
        assert_eq!(container.call("run ping -c 1 -W 2 10.91.0.9")["code"], 0);
        let inspected = bed.run(["network", "inspect", "made0"]).success();
        let inspected: Value = serde_json::from_str(&inspected).expect("inspect prints JSON");
        assert_eq!(inspected[0]["containers"][0]["id"], container.name());
        assert_eq!(inspected[0]["containers"][0]["address"], "10.91.0.5");
        let refused = bed.run(["network", "remove", "made0"]);
        assert!(refused.code == 1 && refused.stderr.contains("uses it"), "{refused:?}");
        drop(container);
        bed.assert_nothing_left();
        assert!(bed.run(["gc"]).success().is_empty(), "there is nothing to collect");
    }
    let taken = bed.container("taken").with(net).with(["--ip", "10.91.0.9"]).run(["true"]);
    assert_eq!(taken.code, 2, "the gateway's address is not a container's: {taken:?}");
    assert!(bed.run(["network", "list"]).success().contains("10.91.0.0/24"));
    assert_eq!(bed.run(["network", "remove", "made0"]).success(), "made0\n");
    assert!(!bed.run(["network", "list"]).success().contains("made0"));
    assert_eq!(bed.run(["network", "remove", "made0"]).code, 1);
}

#[test]
fn nothing_leaves_an_internal_network() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let mut bed = TestBed::new();
    let upstream = upstream(&mut bed);
    // With a route back there is no need for a translated address.
    upstream.ip(&["route", "add", "default", "via", "192.0.2.1"]);
    bed.run(["network", "create", "--internal", "inner0"]).success();
    let mut one =
        bed.container("one").with(["--net", "bridge:inner0", "--cap-add", "NET_ADMIN"]).follow();
    let mut two = bed.container("two").with(["--net", "bridge:inner0"]).follow();
    let port = &two.call("serve 0")["port"];
    let address_two = address(&two);
    assert!(reached(&one.call(&format!("connect {address_two} {port}"))).is_ok(), "within it");
    let routes = one.call("interfaces")["routes"].clone();
    assert!(
        routes.as_array().is_some_and(|all| all.iter().all(|r| r["mask"] != "0.0.0.0")),
        "{routes}"
    );
    // One that makes itself a route gets no further.
    assert_eq!(one.call(&format!("run ip route add default via {}", gateway(&one)))["code"], 0);
    let port = greet(&upstream, 1);
    assert!(reached(&one.call(&format!("connect 192.0.2.2 {port}"))).is_err());
    drop((one, two));
    bed.run(["network", "remove", "inner0"]).success();
    bed.assert_nothing_left();
}

/// As many as start at once.
const MANY: usize = 50;

#[test]
fn fifty_containers_at_once_have_fifty_addresses() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    // Each round takes seconds.
    for round in 0..repeats("TERRARIUM_TEST_ROUNDS", 2) {
        let mut containers: Vec<_> = (0..MANY)
            .map(|number| {
                let container = bed.container(&format!("many{round}n{number}"));
                // Each ends when its input does: all are there together.
                container.with(BRIDGE).start([
                    "sh",
                    "-c",
                    "cat /proc/net/fib_trie | grep -c 32.host; read x",
                ])
            })
            .collect();
        let addresses: BTreeSet<String> = containers
            .iter_mut()
            .map(|container| {
                container.line().unwrap_or_else(|error| panic!("{}: {error}", container.name()));
                address(container)
            })
            .collect();
        assert_eq!(addresses.len(), MANY, "{addresses:?}");
        let hosts = bed.root().join(containers[0].name()).join("hosts");
        let hosts = std::fs::read_to_string(hosts).expect("it has a hosts file");
        assert_eq!(
            hosts.lines().filter(|line| line.contains(&format!("many{round}n"))).count(),
            MANY,
            "{hosts}"
        );
        for container in containers {
            assert_eq!(container.finish().code, 1, "read meets the end of its input");
        }
        bed.assert_nothing_left();
    }
}

/// The IPv6 address without the length of its prefix, as state.json has it.
fn address6(container: &Running<'_>) -> String {
    let state = container.state();
    let address = state["network"]["address6"].as_str().unwrap_or_default();
    address.split('/').next().unwrap_or_default().to_owned()
}

/// What lies behind the host by IPv6: `fd99::2`, where the host has `fd99::1`.
fn upstream6(bed: &mut TestBed) -> NetworkNamespace {
    let upstream = upstream(bed);
    for (namespace, address, device) in
        [(bed.network(), "fd99::1/64", "up0"), (&upstream, "fd99::2/64", "up1")]
    {
        namespace.ip(&["address", "add", address, "dev", device, "nodad"]);
    }
    upstream
}

#[test]
fn a_network_of_both_families_gives_both_addresses_and_names() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"), Ipv6);
    let mut bed = TestBed::new();
    let outside = upstream6(&mut bed);
    let create =
        ["network", "create", "--subnet", "10.91.0.0/24", "--subnet", "fd00:91::/64", "six0"];
    assert_eq!(bed.run(create).success(), "six0\n");
    let net = ["--net", "bridge:six0"];
    let mut one = bed.container("one").with(net).with(["--ip6", "fd00:91::99"]).follow();
    let mut two = bed.container("two").with(net).follow();
    let state = one.state();
    assert_eq!(state["network"]["address6"], "fd00:91::99/64");
    assert_eq!(state["network"]["gateway6"], "fd00:91::1");
    assert_eq!(state["network"]["address"], "10.91.0.2/24");
    assert_eq!(address6(&two), "fd00:91::2");
    let inspected = bed.run(["network", "inspect", "six0"]).success();
    let inspected: Value = serde_json::from_str(&inspected).expect("inspect prints JSON");
    assert_eq!(inspected[0]["subnet6"], "fd00:91::/64");
    assert_eq!(inspected[0]["containers"][1]["address6"], "fd00:91::2");

    let port = &two.call("serve 0")["port"];
    let answer = one.call(&format!("connect fd00:91::2 {port}"));
    assert_eq!(reached(&answer), Ok("hello fd00:91::99"), "at once: nobody waits for duplicates");
    let host = greet(bed.network(), 1);
    let answer = one.call(&format!("connect fd00:91::1 {host}"));
    assert_eq!(reached(&answer), Ok("hello fd00:91::99"), "the gateway");
    // What lies behind knows no way back: an answer means that the address was translated.
    let port = greet(&outside, 1);
    let answer = one.call(&format!("connect fd99::2 {port}"));
    assert_eq!(reached(&answer), Ok("hello fd99::1"), "{answer}");
    let hosts = one.call("read /etc/hosts")["text"].as_str().unwrap_or_default().to_owned();
    for line in [format!("fd00:91::2\t{}", two.name()), format!("10.91.0.3\t{}", two.name())] {
        assert!(hosts.lines().any(|have| have == line), "{line} is missing: {hosts}");
    }
    assert!(hosts.lines().any(|line| line.starts_with("fd00:91::99\t")), "its own: {hosts}");
    drop((one, two));
    let setting =
        bed.network().enter(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding"));
    assert_eq!(setting.expect("it is there").trim(), "0", "forwarding is as it was");
    bed.run(["network", "remove", "six0"]).success();
    bed.assert_nothing_left();
}

#[test]
fn a_port_is_published_by_ipv6_as_well() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"), Ipv6);
    let mut bed = TestBed::new();
    let outside = upstream6(&mut bed);
    bed.run(["network", "create", "--ipv6", "six0"]).success();
    let net =
        ["--net", "bridge:six0", "-p", "8080:80", "-p", "[fd99::1]:8081:80", "-p", "[::]:8082:80"];
    let mut web = bed.container("web").with(net).follow();
    web.call("serve 80");
    let ports = web.state()["network"]["ports"].clone();
    let expected = [
        "0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp", "[fd99::1]:8081->80/tcp", "[::]:8082->80/tcp",
    ];
    assert_eq!(ports, serde_json::json!(expected));
    let greeting = |client: &str| Some(format!("hello {client}"));
    for port in [8080, 8081, 8082] {
        assert_eq!(hear(&outside, &format!("[fd99::1]:{port}")), greeting("fd99::2"), "{port}");
        assert!(hear(bed.network(), &format!("[fd99::1]:{port}")).is_some(), "the host, {port}");
    }
    assert_eq!(hear(&outside, "192.0.2.1:8080"), greeting("192.0.2.2"), "by IPv4");
    assert_eq!(hear(&outside, "192.0.2.1:8082"), None, "that one is of IPv6 alone");
    let other = ["--net", "bridge", "-p", "[::]:8083:80"];
    let refused = bed.container("four").with(other).run(["true"]);
    assert!(refused.code == 125 && refused.stderr.contains("has no IPv6"), "{refused:?}");
    let taken = bed.container("five").with(["--net", "bridge:six0", "-p", "[fd99::1]:8080:80"]);
    let taken = taken.run(["true"]);
    assert!(taken.stderr.contains("has published it"), "{taken:?}");
    drop(web);
    bed.run(["network", "remove", "six0"]).success();
    bed.assert_nothing_left();
}

#[test]
fn networks_are_isolated_by_ipv6_too() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"), Ipv6);
    let mut bed = TestBed::new();
    let outside = upstream6(&mut bed);
    outside.ip(&["-6", "route", "add", "default", "via", "fd99::1"]);
    bed.run(["network", "create", "--subnet", "fd00:1::/64", "one0"]).success();
    bed.run(["network", "create", "--subnet", "fd00:2::/64", "two0"]).success();
    bed.run(["network", "create", "--subnet", "fd00:3::/64", "--internal", "inner0"]).success();
    let start = |name, net: &str| {
        bed.container(name).with(["--net", net, "--cap-add", "NET_ADMIN"]).follow()
    };
    let (mut one, mut two) = (start("one", "bridge:one0"), start("two", "bridge:two0"));
    let (mut inner, mut friend) =
        (start("inner", "bridge:inner0"), start("friend", "bridge:inner0"));
    let port = &two.call("serve 0")["port"];
    assert!(reached(&one.call(&format!("connect {} {port}", address6(&two)))).is_err());
    let port = &friend.call("serve 0")["port"];
    assert!(reached(&inner.call(&format!("connect {} {port}", address6(&friend)))).is_ok());
    assert!(reached(&one.call(&format!("connect {} {port}", address6(&friend)))).is_err());
    // One that makes itself a route out gets no further.
    assert_eq!(inner.call("run ip -6 route add default via fd00:3::1")["code"], 0);
    let port = greet(&outside, 2);
    assert!(reached(&inner.call(&format!("connect fd99::2 {port}"))).is_err());
    assert!(reached(&one.call(&format!("connect fd99::2 {port}"))).is_ok(), "others get out");
    // A network without an IPv6 subnet: what its containers give themselves leads nowhere.
    let mut plain = start("plain", "bridge");
    let commands =
        ["run ip -6 address add fd00:4::2/64 dev eth0", "run ip -6 route add default dev eth0"];
    for command in commands {
        assert_eq!(plain.call(command)["code"], 0, "{command}");
    }
    // For a second the kernel looks whether somebody else has the address.
    plain.call("run sleep 2");
    assert!(reached(&plain.call(&format!("connect fd99::2 {port}"))).is_err());
    let disabled = bed
        .network()
        .enter(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/terra0/disable_ipv6"));
    assert_eq!(disabled.expect("terra0 is there").trim(), "1");
    drop((one, two, inner, friend, plain));
    for name in ["one0", "two0", "inner0"] {
        bed.run(["network", "remove", name]).success();
    }
    bed.assert_nothing_left();
}

/// CVE-2020-13401: a container that plays the router gives the host no address and no route.
#[test]
fn a_router_among_the_containers_does_not_configure_the_host() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"), Ipv6);
    let bed = TestBed::new();
    bed.run(["network", "create", "--ipv6", "six0"]).success();
    let running = bed.container("router").with(["--net", "bridge:six0"]).follow();
    let setting =
        bed.network().enter(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/six0/accept_ra"));
    assert_eq!(setting.expect("six0 is there").trim(), "0");
    drop(running);
    bed.run(["network", "remove", "six0"]).success();
}

/// A bridge as another engine has made it: 172.17.0.1/16.
fn foreign_bridge(bed: &mut TestBed, name: &str) {
    // With no link address of its own it would take that of its lowest port.
    bed.network().ip(&["link", "add", name, "address", "02:42:ac:11:00:01", "type", "bridge"]);
    bed.network().ip(&["address", "add", "172.17.0.1/16", "dev", name]);
    bed.network().ip(&["link", "set", name, "up"]);
    bed.expect_links();
}

#[test]
fn an_existing_bridge_is_used_and_stays_as_it_is() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let mut bed = TestBed::new();
    foreign_bridge(&mut bed, "docker0");
    let look = |bed: &TestBed| {
        let show = |what: &str| bed.network().ip(&["-json", what, "show", "dev", "docker0"]);
        let mut link: Value = serde_json::from_str(&show("link")).expect("ip -json prints JSON");
        // Whether a port is there, which comes and goes with the containers.
        for field in ["flags", "operstate"] {
            link[0][field] = Value::Null;
        }
        let forward =
            bed.network().enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
        (link, forward.expect("it is there"), bed.network().nft_ruleset())
    };
    let addresses = |bed: &TestBed| {
        let text = bed.network().ip(&["-4", "-json", "address", "show", "dev", "docker0"]);
        let all: Value = serde_json::from_str(&text).expect("ip -json prints JSON");
        all[0]["addr_info"].clone()
    };
    let before = (look(&bed), addresses(&bed));
    let net = ["--net", "bridge:docker0"];
    // The article's own example.
    let mut one = bed.container("one").with(net).with(["--ip", "172.17.0.50"]).follow();
    let state = one.state();
    assert_eq!(state["network"]["address"], "172.17.0.50/16");
    assert_eq!(state["network"]["gateway"], "172.17.0.1");
    let mut two = bed.container("two").with(net).follow();
    let address_two = address(&two);
    assert!(
        address_two.starts_with("172.17.128."),
        "the engine's own are at the low end: {address_two}"
    );
    let port = &two.call("serve 0")["port"];
    let answer = one.call(&format!("connect {address_two} {port}"));
    assert_eq!(reached(&answer), Ok("hello 172.17.0.50"));
    let port = greet(bed.network(), 1);
    assert!(reached(&one.call(&format!("connect 172.17.0.1 {port}"))).is_ok(), "the gateway");
    assert_eq!((look(&bed), addresses(&bed)), before, "while it is used");
    let published = bed.container("three").with(net).with(["-p", "8080:80"]).run(["true"]);
    assert!(published.code == 125 && published.stderr.contains("its maker's"), "{published:?}");
    let subnet = bed.container("four").with(net).with(["--subnet", "10.3.0.0/24"]).run(["true"]);
    assert!(subnet.code == 125 && subnet.stderr.contains("172.17.0.0/16"), "{subnet:?}");
    assert!(bed.run(["network", "create", "docker0"]).code == 1, "it is somebody's");
    drop((one, two));
    assert_eq!(bed.run(["gc"]).success(), "");
    assert_eq!((look(&bed), addresses(&bed)), before, "when nobody uses it any more");
    bed.assert_nothing_left();
}

#[test]
fn what_cannot_serve_as_a_bridge_is_refused_with_the_reason() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let mut bed = TestBed::new();
    bed.network().ip(&["link", "add", "plain0", "type", "veth", "peer", "plain1"]);
    bed.network().ip(&["link", "add", "bare0", "type", "bridge"]);
    bed.expect_links();
    let refused = |net: &str| {
        let outcome = bed.container("refused").with(["--net", net]).run(["true"]);
        assert_eq!(outcome.code, 125, "{outcome:?}");
        outcome.stderr
    };
    assert!(refused("bridge:plain0").contains("it is no bridge"));
    assert!(refused("bridge:bare0").contains("has no IPv4 address"));
    // Of two state roots one has the bridge: the other knows none of its leases.
    let running = bed.container("first").with(BRIDGE).follow();
    let elsewhere = bed.folder().join("elsewhere");
    let mut command = std::process::Command::new(bed.terrarium().get_program());
    command.arg("--root").arg(&elsewhere).args(["run", "--net", "bridge"]).arg(bed.rootfs());
    let outcome = bed.finish(command.args(["--", "true"]));
    assert!(
        outcome.code == 125 && outcome.stderr.contains("not made by this state root"),
        "{outcome:?}"
    );
    drop(running);
    bed.assert_nothing_left();
}

/// nft's and iptables' view of everything outside terrarium's own tables.
fn rules_of_the_host(bed: &TestBed) -> String {
    let ruleset = bed.network().nft_ruleset();
    let mut theirs = String::new();
    let mut ours = false;
    for line in ruleset.lines() {
        if line.starts_with("table ") {
            ours = line.contains(" terrarium_");
        }
        if !ours {
            theirs.push_str(line);
            theirs.push('\n');
        }
    }
    for program in ["iptables-save", "ip6tables-save"] {
        if terrarium_tests::requirement::program(program).is_some() {
            let text = bed.network().run(program, &[]).success();
            // The comments carry the time, and the counters count.
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                theirs.push_str(line.split(" [").next().unwrap_or_default());
                theirs.push('\n');
            }
        }
    }
    theirs
}

#[test]
fn the_hosts_own_firewall_is_never_touched() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"), Ipv6);
    let bed = TestBed::new();
    // As docker and an administrator leave it, in nft's words and in those of iptables.
    let rules = "add table inet admin; add chain inet admin input { type filter hook input priority 0; policy accept; }; \
                 add rule inet admin input tcp dport 22 accept; \
                 add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority 100; policy accept; }; \
                 add rule ip nat POSTROUTING ip saddr 172.17.0.0/16 masquerade; \
                 add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy accept; }; \
                 add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER; \
                 add rule ip filter DOCKER-USER return";
    bed.network().run("nft", &[rules]).success();
    let before = rules_of_the_host(&bed);
    assert!(before.contains("DOCKER-USER"), "{before}");
    bed.run(["network", "create", "--ipv6", "--internal", "six0"]).success();
    let containers = [
        bed.container("one").with(BRIDGE).with(["-p", "8081:80"]).follow(),
        bed.container("two").with(["--net", "bridge:six0", "-p", "8082:80"]).follow(),
    ];
    assert!(bed.network().nft_ruleset().contains("terrarium_terra0"));
    assert_eq!(rules_of_the_host(&bed), before, "while containers run");
    drop(containers);
    bed.run(["network", "remove", "six0"]).success();
    assert_eq!(rules_of_the_host(&bed), before, "afterwards");
    assert!(!bed.network().nft_ruleset().contains("terrarium"), "and nothing else is left");
    bed.network().run("nft", &["flush", "ruleset"]).success();
}

#[test]
fn a_container_shares_the_network_of_another_with_its_names() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    let options = ["--net", "bridge", "--dns", "192.0.2.53", "--add-host", "db:192.0.2.7"];
    let mut web = bed.container("web").with(options).follow();
    let net = format!("container:{}", web.name());
    let mut sidecar = bed.container("sidecar").with(["--net", &net]).follow();
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        let read = format!("read {file}");
        let (theirs, own) = (web.call(&read), sidecar.call(&read));
        assert_eq!(theirs["text"], own["text"], "{file}");
    }
    let hosts = sidecar.call("read /etc/hosts")["text"].as_str().unwrap_or_default().to_owned();
    assert!(hosts.contains("192.0.2.7\tdb"), "{hosts}");
    let port = &sidecar.call("serve 0")["port"];
    let answer = web.call(&format!("connect 127.0.0.1 {port}"));
    assert_eq!(reached(&answer), Ok("hello 127.0.0.1"), "one loopback for both");
    let refused = bed.container("third").with(["--net", &net, "-p", "80:80"]).run(["true"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let gone = bed.container("fourth").with(["--net", "container:nobody"]).run(["true"]);
    assert!(gone.code == 125 && gone.stderr.contains("nobody"), "{gone:?}");

    // By path it is the namespace alone.
    let path = format!("ns:/proc/{}/ns/net", web.state()["pid"]);
    let mut joined = bed.container("joined").with(["--net", &path]).follow();
    let inode = |state: &Value| state["namespaces"]["net"].clone();
    assert_eq!(inode(&joined.state()), inode(&web.state()));
    assert_eq!(joined.call("true")["ok"], true);
    drop((joined, sidecar, web));
    bed.assert_nothing_left();
}

#[test]
fn networks_are_labelled_listed_and_pruned() {
    require!(Root, Program("busybox"), Program("ip"), Program("nft"));
    let bed = TestBed::new();
    bed.run(["network", "create", "--label", "team=red", "red0"]).success();
    bed.run(["network", "create", "--label", "team=blue", "blue0"]).success();
    bed.run(["network", "create", "busy0"]).success();
    let listed = bed.run(["network", "list", "--format", "json"]).success();
    let listed: Value = serde_json::from_str(&listed).expect("list prints JSON");
    assert_eq!(listed[0]["name"], "blue0");
    assert_eq!(listed[0]["labels"]["team"], "blue");
    let running = bed.container("busy").with(["--net", "bridge:busy0"]).follow();
    assert_eq!(bed.run(["network", "prune", "--label", "team=red"]).success(), "red0\n");
    assert_eq!(bed.run(["network", "prune"]).success(), "blue0\n");
    drop(running);
    assert_eq!(bed.run(["network", "prune"]).success(), "busy0\n");
    assert_eq!(bed.run(["network", "list", "--format", "json"]).success().trim(), "[]");
    for (arguments, option) in [
        (["--subnet", "10.9.0.0/24", "--subnet", "10.10.0.0/24"], "--subnet"),
        (["--gateway", "fd00::1", "--subnet", "10.9.0.0/24"], "--gateway"),
    ] {
        let refused = bed.run(["network", "create", "bad0"].into_iter().chain(arguments));
        assert!(refused.code == 2 && refused.stderr.contains(option), "{refused:?}");
    }
    bed.assert_nothing_left();
}
