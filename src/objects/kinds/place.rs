//! What a key says of its object.

use super::table::Kinds;

/// A key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The API server's prefix, without the slash in front.
    pub prefix: &'a str,
    /// What names the kind: `pods`, `services/specs`, `example.com/widgets`.
    pub path: &'a str,
    /// The namespace, if it is in one.
    pub namespace: Option<&'a str>,
    /// The name.
    pub name: &'a str,
}

/// Paths below which there are no objects of an API: allocations and the API servers' own leases.
const NO_OBJECTS: [&str; 3] = ["ranges", "masterleases", "peerserverleases"];

/// Takes a key apart; nothing comes back where no object has such a key.
pub fn place<'a>(key: &'a [u8], kinds: &Kinds) -> Option<Place<'a>> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix('/')?;
    let (prefix, rest) = key.split_once('/')?;
    let slash = |nth: usize| rest.match_indices('/').nth(nth).map(|(at, _)| at);
    let first = rest.get(..slash(0)?)?;
    if NO_OBJECTS.contains(&first) {
        return None;
    }
    let two = slash(1).and_then(|at| rest.get(..at));
    let path = match two {
        Some(two) if kinds.at(two).is_some() => two,
        _ if kinds.at(first).is_some() => first,
        // A custom resource whose definition is gone has its group in the key.
        Some(two) if first.contains('.') => two,
        _ => first,
    };
    let rest = rest.get(path.len() + 1..)?;
    let (namespace, name) = match rest.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, rest),
    };
    let whole = !name.is_empty() && !name.contains('/') && namespace != Some("");
    whole.then_some(Place {
        prefix,
        path,
        namespace,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        let kinds = Kinds::default();
        for (key, expected) in [
            (
                "/registry/pods/shop/a",
                Some(("registry", "pods", Some("shop"), "a")),
            ),
            (
                "/kubernetes.io/minions/cp-1",
                Some(("kubernetes.io", "minions", None, "cp-1")),
            ),
            (
                "/registry/services/specs/shop/web",
                Some(("registry", "services/specs", Some("shop"), "web")),
            ),
            (
                "/openshift.io/oauth/clients/c",
                Some(("openshift.io", "oauth/clients", None, "c")),
            ),
            (
                "/registry/example.com/widgets/ns/w",
                Some(("registry", "example.com/widgets", Some("ns"), "w")),
            ),
            (
                "/registry/example.com/planets/p",
                Some(("registry", "example.com/planets", None, "p")),
            ),
            (
                "/registry/clusterroles/system:node",
                Some(("registry", "clusterroles", None, "system:node")),
            ),
            (
                "/registry/newthings/ns/n",
                Some(("registry", "newthings", Some("ns"), "n")),
            ),
            ("/registry/ranges/serviceips", None),
            ("/registry/masterleases/192.0.2.1", None),
            ("compact_rev_key", None),
            ("/registry/health", None),
            ("/registry/pods/", None),
            ("/registry/pods//a", None),
            ("/registry/pods/a/b/c", None),
            ("", None),
        ] {
            let found = place(key.as_bytes(), &kinds);
            let found = found.map(|place| (place.prefix, place.path, place.namespace, place.name));
            assert_eq!(found, expected, "{key}");
        }
        assert_eq!(place(b"/registry/pods/\xff/a", &kinds), None);
    }
}
