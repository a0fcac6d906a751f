//! What the figures were measured on.

use std::fs;

use serde_json::{Value, json};

/// Instruction sets that make a difference here.
const FLAGS: [&str; 12] = [
    "aes",
    "pclmulqdq",
    "sha_ni",
    "avx2",
    "bmi2",
    "vaes",
    "vpclmulqdq",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "gfni",
    "hypervisor",
];

/// Processor, kernel, compiler: an object of strings, lists and numbers. What
/// cannot be read is `null`.
pub fn description() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = cpu_field(&cpuinfo, "flags").unwrap_or_default();
    let flags: Vec<&str> = FLAGS
        .into_iter()
        .filter(|flag| has.split_whitespace().any(|one| one == *flag))
        .collect();
    let number = |name| cpu_field(&cpuinfo, name).and_then(|text| text.parse::<u64>().ok());
    json!({
        "cpu": cpu_field(&cpuinfo, "model name"),
        "cpu_family_model": [number("cpu family"), number("model")],
        "flags": flags,
        "cores": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "l2_and_l3": [cache(2), cache(3)],
        "governor": line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
            .unwrap_or("not to be seen".into()),
        "memory": meminfo(),
        "kernel": line("/proc/sys/kernel/osrelease").map(numbers),
        "system": os_release(),
        "compiler": env!("GM_BENCH_RUSTC"),
    })
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A kernel's version without what its builder calls it.
fn numbers(release: String) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.');
    release[..end.unwrap_or(release.len())].to_owned()
}

/// A field of the first processor.
fn cpu_field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim())
    })
}

/// Size of the first processor's cache of a level, with its unit.
fn cache(level: u8) -> Option<String> {
    (0..8).find_map(|index| {
        let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let here = line(&format!("{folder}/level"))? == level.to_string();
        here.then(|| line(&format!("{folder}/size")))?
    })
}

fn meminfo() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some(cpu_field(&text, "MemTotal")?.to_owned())
}

fn os_release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_first_processors() {
        let text = "processor\t: 0\nmodel name\t: A: b\n\nprocessor\t: 1\nmodel name\t: C\n";
        assert_eq!(cpu_field(text, "model name"), Some("A: b"));
        assert_eq!(cpu_field(text, "model"), None);
    }

    #[test]
    fn a_kernel_is_its_numbers() {
        assert_eq!(numbers("6.1.0-40-amd64".into()), "6.1.0");
        assert_eq!(numbers("6.12".into()), "6.12");
    }

    #[test]
    fn the_compiler_is_known() {
        assert!(
            description()["compiler"]
                .as_str()
                .is_some_and(|name| name.starts_with("rustc "))
        );
    }
}
