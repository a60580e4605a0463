//! Bridges, addresses, routes, and who reaches whom.

use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use terrarium_tests::{NetworkNamespace, Running, TestBed, require, rootfs};

const BRIDGE: [&str; 2] = ["--net", "bridge"];

/// A server in `namespace` on a free port of every address that greets `count` clients with their address.
fn greet(namespace: &NetworkNamespace, count: usize) -> u16 {
    let listener = namespace.enter(|| TcpListener::bind("0.0.0.0:0").expect("a port is free"));
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(count).flatten() {
            let peer = stream.peer_addr().expect("it is connected").ip();
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
    let upstream = NetworkNamespace::new();
    bed.network().connect("up0", &upstream, "up1");
    bed.network().ip(&["address", "add", "192.0.2.1/24", "dev", "up0"]);
    upstream.ip(&["address", "add", "192.0.2.2/24", "dev", "up1"]);
    bed.network().ip(&["route", "add", "default", "via", "192.0.2.2"]);
    bed.expect_links();
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
