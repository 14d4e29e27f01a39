//! The existing name nearest to one that is not there, for error messages.

/// The nearest of `names`, if it is near enough to be what was meant.
pub(crate) fn nearest(name: &str, names: &[String]) -> Option<String> {
    const LOOKED_AT: usize = 1_000;
    let far = name.chars().count() / 3 + 1;
    names
        .iter()
        .take(LOOKED_AT)
        .map(|other| (distance(name, other), other))
        .filter(|(d, _)| *d <= far)
        .min()
        .map(|(_, other)| other.clone())
}

/// How many characters have to be inserted, deleted or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut before = i + 1;
        let mut diagonal = i;
        let mut next = vec![before];
        for (&cb, &above) in b.iter().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(ca != cb)).min(before + 1).min(above + 1);
            diagonal = above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let names = ["flights".to_owned(), "weather".to_owned()];
        assert_eq!(nearest("flihgts", &names).as_deref(), Some("flights"));
        assert_eq!(nearest("planes", &names), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
