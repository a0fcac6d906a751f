//! States and policies as commands of iproute2, for `ip -batch`.
//!
//! A batch and no shell script: what stands on a command line is in the list of
//! processes for all to read, and what `ip` reads from a file is not.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::Text;
use crate::kernel::{
    Action, Algorithm, ESP, ESP_IN_UDP, Limits, Net, Numbers, Policy, Ports, Selector, State, Wrap,
    unspecified,
};

const HEAD: &str = "\
# ESP SAs for iproute2. Anyone who has this file can read what they protect.
# Install: ip -batch FILE    (in another namespace: ip -netns NAME -batch FILE)
# It stops at the first line that the kernel refuses, and leaves what it has
# made; gm-xfrm install takes it back.
";

/// XFRM_STATE_ESN.
const ESN: u8 = 0x80;

/// Why iproute2 cannot make a state or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsayable {
    /// Larval states, and other protocols than ESP.
    #[error("not ESP with an SPI")]
    NotEsp,
    /// A mode other than transport and tunnel, or UDP around it that is not RFC 3948's.
    #[error("its mode")]
    Mode,
    /// Ports with some bits of a mask; iproute2 has one port or any.
    #[error("a block of ports")]
    Ports,
    /// A number of an interface, where iproute2 wants a name.
    #[error("an interface")]
    Interface,
    /// A name that would end the word that it is in.
    #[error("the name of an algorithm")]
    Name,
}

/// The whole batch. What cannot be said stands in it as a comment.
pub fn batch(states: &[State], policies: &[Policy]) -> Zeroizing<String> {
    let mut text = Text::default();
    text.push(HEAD);
    for of in states {
        if let Err(why) = state(&mut text, of) {
            let _ = writeln!(text, "\n# (left out: state {}: {why})", of.id);
        }
    }
    if !policies.is_empty() {
        text.push("\n");
    }
    for of in policies {
        if let Err(why) = policy(&mut text, of) {
            let _ = writeln!(text, "# (left out: policy {}: {why})", of.id);
        }
    }
    text.finish()
}

/// Appends the command that makes a state.
fn state(text: &mut Text, state: &State) -> Result<(), Unsayable> {
    sayable(&state.selector)?;
    let mode = mode(state.wrap)?;
    if state.id.proto != ESP || state.id.spi == 0 {
        return Err(Unsayable::NotEsp);
    }
    if state.encap.is_some_and(|encap| encap.kind != ESP_IN_UDP) {
        return Err(Unsayable::Mode);
    }
    let algorithms = [
        &state.algorithms.auth,
        &state.algorithms.crypt,
        &state.algorithms.aead,
    ];
    if !algorithms.into_iter().flatten().all(is_named) {
        return Err(Unsayable::Name);
    }
    text.push("\n");
    remarks(text, state);
    let _ = write!(
        text,
        "xfrm state add src {} dst {} proto esp spi {:#010x} reqid {} mode {mode}",
        state.src, state.id.dst, state.id.spi, state.reqid
    );
    numbers(text, &state.numbers);
    match state.flags | if state.numbers.esn { ESN } else { 0 } {
        0 => {}
        ESN => text.push(" flag esn"),
        flags => {
            let _ = write!(text, " flag {flags:#04x}");
        }
    }
    if state.extra_flags != 0 {
        let _ = write!(text, " extra-flag {:#x}", state.extra_flags);
    }
    if let Some(mark) = state.mark {
        let _ = write!(text, " mark {:#x} mask {:#x}", mark.value, mark.mask);
    }
    if state.if_id != 0 {
        let _ = write!(text, " if_id {:#x}", state.if_id);
    }
    if let Some(aead) = &state.algorithms.aead {
        algorithm(text, "aead", aead, true);
    }
    if let Some(auth) = &state.algorithms.auth {
        let truncated = auth.icv_bits != 0;
        algorithm(
            text,
            if truncated { "auth-trunc" } else { "auth" },
            auth,
            truncated,
        );
    }
    if let Some(crypt) = &state.algorithms.crypt {
        algorithm(text, "enc", crypt, false);
    }
    if let Some(encap) = state.encap {
        let any = unspecified(state.id.dst.is_ipv6());
        let _ = write!(
            text,
            " encap espinudp {} {} {any}",
            encap.sport, encap.dport
        );
    }
    limits(text, &state.limits);
    text.push(" sel");
    selector(text, &state.selector);
    text.push("\n");
    Ok(())
}

/// What a state has and the command does not say.
fn remarks(text: &mut Text, state: &State) {
    let numbers = &state.numbers;
    if state.selector.user != 0 {
        let _ = writeln!(
            text,
            "# (not said: selector's user {})",
            state.selector.user
        );
    }
    if numbers.top != 0 && numbers.window != 0 {
        let _ = writeln!(
            text,
            "# Numbers to {} have come and are refused.",
            numbers.top
        );
    }
}

/// Counter and window. iproute2 cannot say which numbers of a window have come:
/// the window begins above the highest one, so that none is accepted twice.
fn numbers(text: &mut Text, numbers: &Numbers) {
    if numbers.window == 0 && !numbers.esn {
        put(text, "replay-oseq", numbers.seq, false);
        return;
    }
    let _ = write!(text, " replay-window {}", numbers.window);
    put(text, "replay-oseq", numbers.seq, numbers.esn);
    if numbers.top != 0 {
        let top = numbers.top.saturating_add(numbers.window.into());
        let last = if numbers.esn {
            u64::MAX
        } else {
            u32::MAX.into()
        };
        put(text, "replay-seq", top.min(last), numbers.esn);
    }
}

fn put(text: &mut Text, word: &str, number: u64, esn: bool) {
    if number != 0 {
        let _ = write!(text, " {word} {}", number as u32);
    }
    if esn && number >> 32 != 0 {
        let _ = write!(text, " {word}-hi {}", number >> 32);
    }
}

/// Appends when a state or a policy is told of and ends, where it does.
fn limits(text: &mut Text, limits: &Limits) {
    let never = Limits::default();
    for (word, of, never) in [
        ("byte", limits.bytes, never.bytes),
        ("packet", limits.packets, never.packets),
        ("time", limits.added, never.added),
        ("time-use", limits.used, never.used),
    ] {
        for (end, of, never) in [("soft", of[0], never[0]), ("hard", of[1], never[1])] {
            if of != never {
                let _ = write!(text, " limit {word}-{end} {of}");
            }
        }
    }
}

fn is_named(algorithm: &Algorithm) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "()_-,.".contains(c);
    !algorithm.name.is_empty() && algorithm.name.chars().all(plain)
}

fn algorithm(text: &mut Text, word: &str, algorithm: &Algorithm, icv: bool) {
    let _ = write!(text, " {word} {} ", algorithm.name);
    match algorithm.key.bytes() {
        [] => text.push("\"\""),
        key => {
            text.push("0x");
            text.hex(key);
        }
    }
    if icv {
        let _ = write!(text, " {}", algorithm.icv_bits);
    }
}

/// Appends the command that makes a policy.
fn policy(text: &mut Text, policy: &Policy) -> Result<(), Unsayable> {
    sayable(&policy.id.selector)?;
    for template in &policy.templates {
        mode(template.wrap)?;
        if template.proto != ESP {
            return Err(Unsayable::NotEsp);
        }
    }
    if policy.id.selector.user != 0 {
        let _ = writeln!(
            text,
            "# (not said: selector's user {})",
            policy.id.selector.user
        );
    }
    text.push("xfrm policy add");
    selector(text, &policy.id.selector);
    let _ = write!(text, " dir {}", policy.id.dir);
    if let Some(mark) = policy.id.mark {
        let _ = write!(text, " mark {:#x} mask {:#x}", mark.value, mark.mask);
    }
    if policy.id.if_id != 0 {
        let _ = write!(text, " if_id {:#x}", policy.id.if_id);
    }
    if policy.action == Action::Block {
        text.push(" action block");
    }
    let _ = write!(text, " priority {}", policy.priority);
    if policy.flags != 0 {
        let _ = write!(text, " flag {:#04x}", policy.flags);
    }
    limits(text, &policy.limits);
    for template in &policy.templates {
        let _ = write!(
            text,
            " tmpl src {} dst {} proto esp",
            template.src, template.dst
        );
        if template.spi != 0 {
            let _ = write!(text, " spi {:#010x}", template.spi);
        }
        let _ = write!(
            text,
            " reqid {} mode {}",
            template.reqid,
            mode(template.wrap)?
        );
        if template.optional {
            text.push(" level use");
        }
    }
    text.push("\n");
    Ok(())
}

fn mode(wrap: Wrap) -> Result<&'static str, Unsayable> {
    match wrap {
        Wrap::Transport => Ok("transport"),
        Wrap::Tunnel => Ok("tunnel"),
        Wrap::Other(_) => Err(Unsayable::Mode),
    }
}

fn sayable(selector: &Selector) -> Result<(), Unsayable> {
    let whole = |ports: &Ports| matches!(ports.mask, 0 | u16::MAX);
    if !whole(&selector.sport) || !whole(&selector.dport) {
        Err(Unsayable::Ports)
    } else if selector.ifindex != 0 {
        Err(Unsayable::Interface)
    } else {
        Ok(())
    }
}

/// Appends ` src 192.0.2.1/32 dst 192.0.2.2/32 sport 5060`.
fn selector(text: &mut Text, selector: &Selector) {
    let net = |text: &mut Text, word: &str, net: &Net| {
        let _ = write!(text, " {word} {net}");
    };
    net(text, "src", &selector.src);
    net(text, "dst", &selector.dst);
    match selector.proto {
        0 => {}
        6 => text.push(" proto tcp"),
        17 => text.push(" proto udp"),
        proto => {
            let _ = write!(text, " proto {proto}");
        }
    }
    for (word, ports) in [("sport", &selector.sport), ("dport", &selector.dport)] {
        if let Some(port) = ports.exact() {
            let _ = write!(text, " {word} {port}");
        }
    }
}
