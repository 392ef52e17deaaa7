//! Any backend, frontend and Maglev table: what of [`super::World`] is about services.

use std::net::SocketAddr;
use std::sync::Arc;

use ciliate::kinds::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::address;

pub fn lb_backends() -> impl Strategy<Value = (lb_backend::Key, lb_backend::Spec, lb_backend::Seen)>
{
    let backend = || {
        (address(), 80..82u16, select(vec![6u8, 17, 99]), 0..5u8).prop_map(
            |(ip, port, protocol, state)| {
                let address = SocketAddr::new(ip, port);
                lb_backend::Spec { address, protocol, state }
            },
        )
    };
    (1..5u32, any::<bool>(), backend(), backend(), any::<bool>()).prop_map(
        |(id, ipv6, spec, backend, strange)| {
            (lb_backend::Key { id, ipv6 }, spec, lb_backend::Seen { backend, strange })
        },
    )
}

pub fn maglev_tables()
-> impl Strategy<Value = (maglev_table::Key, maglev_table::Spec, maglev_table::Seen)> {
    let member = (1..5u32, address(), 1..3u16).prop_map(|(id, ip, weight)| {
        let address = SocketAddr::new(ip, 80);
        maglev_table::Member { id, address, protocol: 6, weight }
    });
    let digest = || select(vec![0, 1, u64::MAX]);
    let size = || select(vec![251, 509u32]);
    (1..4u32, vec(member, 1..3), size(), digest(), size(), digest()).prop_map(
        |(key, members, size, digest, seen_size, seen)| {
            let spec = maglev_table::Spec { size, members: members.into(), digest };
            (maglev_table::Key(key), spec, maglev_table::Seen { size: seen_size, digest: seen })
        },
    )
}

fn lb_head() -> impl Strategy<Value = lb_service::Head> {
    let bits = || select(vec![0u8, 1, 2, 64, 255]);
    let counts = (0..4u16, 0..2u16);
    (1..4u16, 0..4u8, select(vec![0, 90u32]), counts, bits(), bits()).prop_map(
        |(id, algorithm, affinity_s, (count, quarantined), flags, flags2)| lb_service::Head {
            id,
            algorithm,
            affinity_s,
            count,
            quarantined,
            flags,
            flags2,
        },
    )
}

fn lb_state() -> impl Strategy<Value = lb_service::State> {
    let slot = (1..12u16, 1..5u32, 1..4u16, prop::bool::weighted(0.1)).prop_map(
        |(number, backend, id, strange)| lb_service::Slot { number, backend, id, strange },
    );
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"].map(|net| net.parse().unwrap());
    let ranges = subsequence(ranges.to_vec(), 0..=3);
    let kept = subsequence(vec![1, 2, 3u32], 0..=3);
    let reverse = option::of(address().prop_map(|ip| SocketAddr::new(ip, 80)));
    (option::of(lb_head()), vec(slot, 0..12), reverse, ranges, kept, 0..3u32).prop_map(
        |(head, mut slots, reverse_nat, source_ranges, kept, table)| {
            slots.sort_unstable_by_key(|slot| slot.number);
            slots.dedup_by_key(|slot| slot.number);
            lb_service::State { head, slots, reverse_nat, source_ranges, kept, table }
        },
    )
}

pub fn lb_services()
-> impl Strategy<Value = (lb_service::Key, Arc<lb_service::State>, Arc<lb_service::State>)> {
    let frontend = (address(), 80..82u16, select(vec![6u8, 17]), 0..2u8).prop_map(
        |(address, port, protocol, scope)| {
            lb_service::Key::Frontend(lb_service::Frontend { address, port, protocol, scope })
        },
    );
    let number =
        (1..4u16, any::<bool>()).prop_map(|(id, ipv6)| lb_service::Key::Number { id, ipv6 });
    let key = prop_oneof![4 => frontend, 1 => number];
    (key, lb_state(), lb_state())
        .prop_map(|(key, spec, seen)| (key, Arc::new(spec), Arc::new(seen)))
}
