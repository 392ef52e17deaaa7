//! The laws that `Kind` states, for each kind of the registry.

use ciliate::kinds::{Kind, ObjectKey, Observed, Op};
use proptest::prelude::*;

use super::worlds;

macro_rules! laws_of_all {
    ($($kind:ident $field:ident $module:ident,)*) => {
        proptest! {
            $(
                #[test]
                fn $module((key, spec, seen) in worlds::$field()) {
                    use ciliate::kinds::$module::$kind as K;
                    let made = K::realise(&key, &spec);
                    prop_assert_eq!(K::fields(&key, &spec, &made), vec![], "not as asked once made");
                    prop_assert!(K::owned(&made), "what we make is ours");
                    let fields = K::fields(&key, &spec, &seen);
                    prop_assert_eq!(
                        K::is_as_asked(&key, &spec, &seen),
                        fields.is_empty(),
                        "the quick answer differs from {:?}", fields
                    );
                    for field in &fields {
                        prop_assert_ne!(&field.seen, &field.want, "{} is no difference", &field.name);
                    }
                    let texts = [
                        ObjectKey::$kind(key.clone()).to_string(),
                        K::describe_spec(&key, &spec),
                        K::describe_seen(&key, &seen),
                    ];
                    prop_assert!(texts.iter().all(|text| !text.contains('\n')), "{texts:?}");
                    let json = serde_json::to_string(&ObjectKey::$kind(key.clone())).unwrap();
                    let read: ObjectKey = serde_json::from_str(&json).unwrap();
                    prop_assert_eq!(read, ObjectKey::$kind(key));
                }
            )*
        }

        /// Creation order of an op's kind, as the registry has it.
        pub fn rank(op: &Op) -> usize {
            let names = [$(<ciliate::kinds::$module::$kind as Kind>::NAME,)*];
            names.iter().position(|name| *name == op.kind()).unwrap()
        }

        /// Whether objects of the op's kind are removed after those of most kinds.
        pub fn is_removed_late(op: &Op) -> bool {
            match op { $(Op::$kind(_) => ciliate::kinds::$module::$kind::REMOVED_LATE,)* }
        }

        /// The object of an op is gone.
        pub fn lose(op: &Op, observed: &mut Observed) {
            match op { $(Op::$kind(change) => drop(observed.$field.remove(&change.key)),)* }
        }
    };
}
ciliate::for_each_kind!(laws_of_all);
