//! The names of all tests of the workspace, read out of its sources: what
//! `cargo test -- --list` prints, without building anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemFn, ItemMod};

/// Every test as `CRATE: path` (unit tests) or `CRATE/TARGET: path` (a file of `tests/`, a
/// second program). Cases of rstest stand as the harness numbers and names them; a test with
/// `#[values]` stands once, as `path::*`.
pub fn of_workspace(root: &Path) -> BTreeSet<String> {
    let manifest = toml_of(&root.join("Cargo.toml"));
    let members = manifest["workspace"]["members"]
        .as_array()
        .expect("members");
    let mut names = BTreeSet::new();
    for member in members {
        for dir in folders(root, member.as_str().expect("a path")) {
            of_crate(&dir, &mut names);
        }
    }
    names
}

/// What a member of the workspace names: a folder, or with `/*` all crates in one.
fn folders(root: &Path, member: &str) -> Vec<PathBuf> {
    let Some(parent) = member.strip_suffix("/*") else {
        return vec![root.join(member)];
    };
    let entries = fs::read_dir(root.join(parent)).expect("a folder");
    let dirs = entries.map(|entry| entry.expect("an entry").path());
    dirs.filter(|dir| dir.join("Cargo.toml").exists()).collect()
}

fn toml_of(file: &Path) -> toml::Table {
    read(file)
        .parse()
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn of_crate(dir: &Path, names: &mut BTreeSet<String>) {
    let manifest = toml_of(&dir.join("Cargo.toml"));
    let package = manifest["package"]["name"].as_str().expect("a name");
    let lib = dir.join("src/lib.rs");
    if lib.exists() {
        of_target(&lib, package, names);
    }
    let main = dir.join("src/main.rs");
    if main.exists() {
        let prefix = if lib.exists() {
            format!("{package}/{package}")
        } else {
            package.to_owned()
        };
        of_target(&main, &prefix, names);
    }
    for (name, file) in targets(&dir.join("src/bin"))
        .into_iter()
        .chain(targets(&dir.join("tests")))
    {
        of_target(&file, &format!("{package}/{name}"), names);
    }
}

/// Cargo's own rule: each file is a target, and each folder with a `main.rs`.
fn targets(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let target = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let main = path.join("main.rs");
        if main.exists() {
            return Some((name, main));
        }
        (path.extension()? == "rs").then_some((name, path))
    };
    entries.filter_map(|e| target(e.ok()?.path())).collect()
}

fn of_target(file: &Path, prefix: &str, names: &mut BTreeSet<String>) {
    let mut found = Vec::new();
    // The root file of a target looks for its modules beside itself.
    walk(file, file.parent().expect("a folder"), "", &mut found);
    names.extend(found.into_iter().map(|path| format!("{prefix}: {path}")));
}

/// `dir`: where the modules of this file are looked for.
fn walk(file: &Path, dir: &Path, module: &str, found: &mut Vec<String>) {
    let parsed = syn::parse_file(&read(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    items(&parsed.items, file, dir, module, found);
}

fn items(all: &[Item], file: &Path, dir: &Path, module: &str, found: &mut Vec<String>) {
    for item in all {
        match item {
            Item::Fn(function) => tests_of(function, module, found),
            Item::Macro(call)
                if call
                    .mac
                    .path
                    .segments
                    .last()
                    .is_some_and(|s| s.ident == "proptest") =>
            {
                let fns = functions(call.mac.tokens.clone());
                found.extend(fns.iter().map(|name| join(module, name)));
            }
            Item::Mod(inner) => of_module(inner, file, dir, module, found),
            _ => {}
        }
    }
}

fn of_module(inner: &ItemMod, file: &Path, dir: &Path, module: &str, found: &mut Vec<String>) {
    let name = inner.ident.to_string();
    let path = join(module, &name);
    if let Some((_, all)) = &inner.content {
        return items(all, file, &dir.join(&name), &path, found);
    }
    if let Some(named) = path_attribute(&inner.attrs) {
        let file = file.parent().expect("a folder").join(named);
        // Such a file counts as a `mod.rs`: its modules are beside it.
        return walk(&file, file.parent().expect("a folder"), &path, found);
    }
    let (flat, folder) = (dir.join(format!("{name}.rs")), dir.join(&name));
    let file = if flat.exists() {
        flat
    } else {
        folder.join("mod.rs")
    };
    // One that is not there is the compiler's matter.
    if file.exists() {
        walk(&file, &folder, &path, found);
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    let value = attributes
        .iter()
        .filter(|a| a.path().is_ident("path"))
        .find_map(|a| match &a.meta {
            syn::Meta::NameValue(pair) => Some(&pair.value),
            _ => None,
        })?;
    match value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

fn last(attribute: &Attribute) -> String {
    attribute
        .path()
        .segments
        .last()
        .map(|s| s.ident.to_string())
        .unwrap_or_default()
}

fn tests_of(function: &ItemFn, module: &str, found: &mut Vec<String>) {
    let path = join(module, &function.sig.ident.to_string());
    let is = |name: &str| function.attrs.iter().any(|a| last(a) == name);
    if function.sig.inputs.iter().any(has_values) {
        // Their names have the values in them; all of them together are enough here.
        return found.push(format!("{path}::*"));
    }
    let cases: Vec<String> = function.attrs.iter().filter_map(case).collect();
    if cases.is_empty() {
        if is("test") || is("rstest") {
            found.push(path);
        }
        return;
    }
    let width = cases.len().to_string().len();
    found.extend(cases.iter().enumerate().map(|(n, name)| {
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("_{name}")
        };
        format!("{path}::case_{:0width$}{name}", n + 1)
    }));
}

/// Whether an argument is `#[values(..)]` of rstest.
fn has_values(argument: &syn::FnArg) -> bool {
    let attributes = match argument {
        syn::FnArg::Receiver(receiver) => &receiver.attrs,
        syn::FnArg::Typed(typed) => &typed.attrs,
    };
    attributes.iter().any(|a| last(a) == "values")
}

/// The name of `#[case::name(..)]`, empty for `#[case(..)]`.
fn case(attribute: &Attribute) -> Option<String> {
    let mut segments = attribute
        .path()
        .segments
        .iter()
        .map(|s| s.ident.to_string());
    (segments.next()? == "case").then(|| segments.next().unwrap_or_default())
}

/// Functions behind `#[test]` in the tokens of a macro.
fn functions(tokens: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let (mut test, mut named) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Group(group) => test |= group.stream().to_string() == "test",
            TokenTree::Ident(ident) if named => {
                if std::mem::take(&mut test) {
                    names.push(ident.to_string());
                }
                named = false;
            }
            TokenTree::Ident(ident) => named = ident == "fn",
            _ => {}
        }
    }
    names
}
