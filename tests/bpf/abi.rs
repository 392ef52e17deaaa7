//! `src/bpf_abi` against the compiled objects: every field of every record, every map.

use std::collections::BTreeMap;

use ciliate::bpf_abi::{
    CaptureEvent, Ct4Key, Ct6Key, CtValue, DebugEvent, DeviceValue, DropEvent, EncryptionValue,
    EndpointKey, EndpointValue, EventCapture, EventCommon, Frag4Key, Frag6Key, FragValue,
    IpcacheKey, IpcacheValue, Lb4AffinityKey, Lb4Backend, Lb4Key, Lb4ReverseNat, Lb4ReverseSkKey,
    Lb4ReverseSkValue, Lb4SourceRange, Lb6AffinityKey, Lb6Backend, Lb6Key, Lb6ReverseNat,
    Lb6ReverseSkKey, Lb6ReverseSkValue, Lb6SourceRange, LbAffinityMatch, LbAffinityValue, LbValue,
    MAPS, MetricsKey, MetricsValue, MonitorFilter, MonitorValue, NodeValue, Record, Snat4Value,
    Snat6Value, TraceEvent, UnderlayValue,
};
use ciliate::bpf_objects::OBJECTS;

use crate::btf::{Btf, Map, Member};

/// Names of the C structures that were found in an object.
fn compare<R: Record>(btf: &Btf, name: &str) -> bool {
    let Some((size, members)) = btf.structure(name) else { return false };
    assert_eq!(size, R::SIZE, "size of {name}");
    let ours = R::FIELDS.iter().map(|field| Member {
        name: field.name.trim_start_matches("r#").trim_end_matches("_be").to_owned(),
        offset: field.offset,
        size: field.size,
    });
    assert_eq!(members, ours.collect::<Vec<_>>(), "fields of {name}");
    true
}

#[test]
fn records_are_the_c_structures() {
    for object in OBJECTS {
        let btf = Btf::of_object(object.bytes);
        let found = [
            compare::<EndpointKey>(&btf, "endpoint_key"),
            compare::<EndpointValue>(&btf, "endpoint_value"),
            compare::<IpcacheKey>(&btf, "ipcache_key"),
            compare::<IpcacheValue>(&btf, "ipcache_value"),
            compare::<MetricsKey>(&btf, "metrics_key"),
            compare::<MetricsValue>(&btf, "metrics_value"),
            compare::<DeviceValue>(&btf, "device_value"),
            compare::<NodeValue>(&btf, "node_value"),
            compare::<EncryptionValue>(&btf, "encryption_value"),
            compare::<Ct4Key>(&btf, "ct4_key"),
            compare::<Ct6Key>(&btf, "ct6_key"),
            compare::<CtValue>(&btf, "ct_value"),
            compare::<Frag4Key>(&btf, "frag4_key"),
            compare::<Frag6Key>(&btf, "frag6_key"),
            compare::<FragValue>(&btf, "frag_value"),
            compare::<MonitorValue>(&btf, "monitor_value"),
            compare::<MonitorFilter>(&btf, "monitor_filter"),
        ];
        assert_eq!(found, [true; 17], "structures in {}", object.name);
    }
}

#[test]
fn records_of_services_are_the_c_structures() {
    for object in OBJECTS {
        let btf = Btf::of_object(object.bytes);
        let found = [
            compare::<Lb4Key>(&btf, "lb4_key"),
            compare::<Lb6Key>(&btf, "lb6_key"),
            compare::<LbValue>(&btf, "lb_value"),
            compare::<Lb4Backend>(&btf, "lb4_backend"),
            compare::<Lb6Backend>(&btf, "lb6_backend"),
            compare::<Lb4ReverseNat>(&btf, "lb4_reverse_nat"),
            compare::<Lb6ReverseNat>(&btf, "lb6_reverse_nat"),
            compare::<Lb4AffinityKey>(&btf, "lb4_affinity_key"),
            compare::<Lb6AffinityKey>(&btf, "lb6_affinity_key"),
            compare::<LbAffinityValue>(&btf, "lb_affinity_value"),
            compare::<LbAffinityMatch>(&btf, "lb_affinity_match"),
            compare::<Lb4SourceRange>(&btf, "lb4_source_range"),
            compare::<Lb6SourceRange>(&btf, "lb6_source_range"),
            compare::<Lb4ReverseSkKey>(&btf, "lb4_reverse_sk_key"),
            compare::<Lb4ReverseSkValue>(&btf, "lb4_reverse_sk_value"),
            compare::<Lb6ReverseSkKey>(&btf, "lb6_reverse_sk_key"),
            compare::<Lb6ReverseSkValue>(&btf, "lb6_reverse_sk_value"),
            compare::<UnderlayValue>(&btf, "underlay_value"),
            compare::<Snat4Value>(&btf, "snat4_value"),
            compare::<Snat6Value>(&btf, "snat6_value"),
        ];
        assert_eq!(found, [true; 20], "structures in {}", object.name);
    }
}

/// Not every program says everything, and what stands before a record no program keeps: it is looked at
/// where events are read.
#[test]
fn events_are_the_c_structures() {
    let mut found = [false; 6];
    for object in OBJECTS {
        let btf = Btf::of_object(object.bytes);
        let here = [
            compare::<EventCommon>(&btf, "event_common"),
            compare::<EventCapture>(&btf, "event_capture"),
            compare::<DropEvent>(&btf, "drop_event"),
            compare::<TraceEvent>(&btf, "trace_event"),
            compare::<DebugEvent>(&btf, "debug_event"),
            compare::<CaptureEvent>(&btf, "capture_event"),
        ];
        found.iter_mut().zip(here).for_each(|(found, here)| *found |= here);
    }
    assert_eq!(found, [true; 6]);
}

#[test]
fn maps_are_the_c_definitions() {
    let ours = MAPS.iter().map(|def| {
        let map = Map {
            kind: def.kind.number(),
            key_size: def.key_size,
            value_size: def.value_size,
            max_entries: def.max_entries,
            flags: def.flags,
            pinned: true,
        };
        (def.name.to_owned(), map)
    });
    let ours: BTreeMap<_, _> = ours.collect();
    for object in OBJECTS {
        assert_eq!(Btf::of_object(object.bytes).maps(), ours, "maps of {}", object.name);
    }
}
