//! Namespaces asked for and entered.

use super::family::{Counted, Shape, counter, result};
use terrarium_abi::counter::family;
use terrarium_abi::{Kind, NsKind, NsTarget, Via};

pub const CREATE: Counted = Counted {
    family: counter(
        "terrarium_namespace_create_total",
        "Namespaces asked for, by clone or unshare.",
    ),
    counts: family::NS_CREATE,
    shape: Shape::Count,
    known: || {
        let of = |ns| {
            [(Via::Clone, false), (Via::Unshare, false), (Via::Unshare, true)]
                .map(|(via, failed)| Kind::ns_create(ns, via, failed))
        };
        NsKind::ALL.into_iter().flat_map(of).collect()
    },
    labels: |[kind, via, failed]| {
        let via = match via {
            0 => "clone",
            1 => "unshare",
            _ => "other",
        };
        vec![ns(kind), ("via", via), result(failed)]
    },
};

pub const ENTER: Counted = Counted {
    family: counter("terrarium_namespace_enter_total", "Namespaces entered by setns."),
    counts: family::NS_ENTER,
    shape: Shape::Count,
    known: || {
        let of =
            |ns| [NsTarget::Own, NsTarget::Other].map(|target| Kind::ns_enter(ns, target, false));
        NsKind::ALL.into_iter().flat_map(of).collect()
    },
    labels: |[kind, target, failed]| {
        let target = match target {
            0 => "own",
            1 => "host",
            _ => "unknown",
        };
        vec![ns(kind), ("target", target), ("role", "workload"), result(failed)]
    },
};

fn ns(number: u8) -> (&'static str, &'static str) {
    let kind = NsKind::ALL.get(usize::from(number));
    ("ns", kind.map_or("other", |kind| kind.name()))
}
