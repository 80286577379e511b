//! The floors of the crate: what each module may import. Imports go down, never up, and the outside
//! world is let in at one place each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, lowest first: a module may use its own floor's only where the table says so,
/// and whatever stands below it.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("protocol", &[]),
    ("trace", &[]),
    ("stats", &["protocol", "trace"]),
    ("sinks", &["trace"]),
    ("error", &["protocol"]),
    ("session", &["error", "protocol", "stats", "trace"]),
    ("tls", &["error", "protocol"]),
    ("request", &["error", "protocol", "session", "tls", "trace"]),
    (
        "handler",
        &["error", "protocol", "request", "session", "stats", "trace"],
    ),
    (
        "reactor",
        &[
            "error", "handler", "protocol", "request", "session", "sinks", "stats", "tls", "trace",
        ],
    ),
];

/// What comes from outside `std`, and the only places that may use it.
const OUTSIDE: [(&str, &str); 11] = [
    ("log", "sinks/bridge.rs"),
    ("tracing", "sinks/bridge.rs"),
    ("socket2", "reactor/socket.rs"),
    ("libc", "reactor/socket.rs"),
    ("nix", "reactor/kernel.rs"),
    ("zlib_rs", "protocol/deflate/zlib.rs"),
    ("mio", "reactor/"),
    ("rustls", "tls/"),
    ("webpki_roots", "tls/mod.rs"),
    ("getrandom", "reactor/builder.rs"),
    ("simdutf8", "protocol/utf8.rs"),
];

/// Parts of `std` that the lowest floors have no business with: sockets, files, clocks, threads,
/// the environment. (Printing events is what `trace/render` is for, and that is `std::io`.)
const SILENT: [&str; 8] = [
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::TcpListener",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "Instant",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files below `src/` with their paths in it, and their code without comments and unit tests.
fn files() -> Vec<(String, String)> {
    let mut directories = vec![source()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("the sources are here") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(source()).expect("below it");
            let name = name.to_str().expect("ASCII").replace('\\', "/");
            let is_test = name.contains("tests") || !name.ends_with(".rs");
            if !is_test {
                let text = fs::read_to_string(&path).expect("a source file");
                files.push((name, code(&text)));
            }
        }
    }
    assert!(files.len() > 30, "the sources are not where they were");
    files
}

/// Up to the unit tests, and without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = text.expect("there is always one").lines();
    let code = lines.map(|line| line.split("//").next().expect("there is always one"));
    code.collect::<Vec<_>>().join("\n")
}

/// The names behind each `crate::` in `code`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        // `use crate::{a::B, c::D}` names several.
        let group = rest.strip_prefix('{').map_or(rest, |group| {
            group.split('}').next().expect("there is always one")
        });
        let items = if rest.starts_with('{') {
            group.split(',').collect()
        } else {
            vec![group]
        };
        for item in items {
            let name: String = item
                .trim()
                .chars()
                .take_while(|char| char.is_ascii_alphanumeric() || *char == '_')
                .collect();
            imports.insert(name);
        }
    }
    imports
}

/// The module of the first floor that a file belongs to.
fn module(file: &str) -> &str {
    let first = file.split('/').next().expect("there is always one");
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn imports_go_down_the_floors() {
    for (file, code) in files() {
        if file == "lib.rs" {
            continue;
        }
        let module = module(&file);
        let row = ALLOWED.iter().find(|(name, _)| *name == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("src/{file} stands on no floor"));
        for import in imports(&code) {
            assert!(
                import == module || allowed.contains(&&*import),
                "src/{file} imports crate::{import}"
            );
        }
    }
}

#[test]
fn the_table_has_no_way_up() {
    for (index, (module, allowed)) in ALLOWED.iter().enumerate() {
        for import in *allowed {
            let below = &ALLOWED[..index];
            assert!(
                below.iter().any(|(name, _)| name == import),
                "{module} -> {import}"
            );
        }
    }
}

/// Floors are crossed by name: no run of `super::` leads out of a module of the first floor.
#[test]
fn no_relative_path_leaves_its_floor() {
    for (file, code) in files() {
        let depth = file.matches('/').count() + usize::from(!file.ends_with("mod.rs"));
        let climb = "super::".repeat(depth);
        assert!(!code.contains(&climb), "src/{file} climbs out of its floor");
    }
}

#[test]
fn the_outside_world_comes_in_at_one_place_each() {
    for (file, code) in files() {
        for (name, place) in OUTSIDE {
            let uses = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                !code[..at]
                    .ends_with(|char: char| char.is_alphanumeric() || char == '_' || char == ':')
            });
            assert!(!uses || file.starts_with(place), "src/{file} uses {name}");
        }
    }
    // Each of them is really used where the table says, or the check checks nothing.
    for (name, place) in OUTSIDE {
        let files = files();
        let mut places = files.iter().filter(|(file, _)| file.starts_with(place));
        assert!(
            places.any(|(_, code)| code.contains(&format!("{name}::"))),
            "{name}"
        );
    }
}

#[test]
fn the_lowest_floors_are_silent() {
    for (file, code) in files() {
        let module = module(&file);
        let floor = ["protocol", "trace", "session"].contains(&module);
        for name in SILENT {
            assert!(!floor || !code.contains(name), "src/{file} uses {name}");
        }
    }
}

/// Sizes that people can read: the code of a file, without its unit tests.
#[test]
fn files_stay_readable() {
    for (file, code) in files() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 600, "src/{file} has {lines} lines of code");
    }
}
