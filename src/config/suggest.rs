//! "Did you mean": the known word that is nearest to a mistyped one.
//!
//! Pure; imports nothing of this crate.

/// The candidate nearest to `word`, if one is near enough to have been meant: at most a third of its
/// characters are wrong, swapped, missing or too many. `_` counts as `-`, capitals as small letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, candidate);
    let near = |&(distance, candidate): &(usize, &str)| {
        let longest = word.chars().count().max(candidate.len());
        // A cut-off word (`addr`, `mask`) is far by count of edits, and yet it is clear what it means.
        distance * 3 <= longest + 1 || (word.len() >= 3 && candidate.starts_with(&word))
    };
    let scored = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    scored.filter(near).min_by_key(|&(distance, _)| distance).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant_and_nothing_else() {
        let keys = ["name", "addresses", "devices", "cidrs", "routers"];
        for (word, meant) in [
            ("adresses", Some("addresses")),
            ("address", Some("addresses")),
            ("addr", Some("addresses")),
            ("cidr", Some("cidrs")),
            ("Name", Some("name")),
            ("nmae", Some("name")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
        assert_eq!(nearest("native_cidrs", ["native-cidrs"]), Some("native-cidrs"));
    }
}
