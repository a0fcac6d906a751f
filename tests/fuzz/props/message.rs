//! One datagram: what is parsed comes out as it went in, and an edit changes what
//! it names and nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use gm_sip::Message;
use gm_sip::aka::{
    AuthParams, Challenge, Credentials, names_one_user, set_integrity_protected, strip_keys,
    take_keys,
};
use gm_sip::header::via::mark_source;
use gm_sip::header::{self, Host, NameAddr, Uri, Via, list};
use gm_sip::message::{MAX_HEADERS, MAX_MESSAGE, same_name};
use gm_sip::sec_agree::SecList;

/// Header names of one message whose edits are tried.
const NAMES: usize = 6;
/// Room that edits need below the bounds of a message.
const ROOM: usize = 4096;

/// The properties of one input.
pub fn check(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    unchanged(data, &message);
    values(&message);
    keys(&message);
    if message.headers().len() + 2 > MAX_HEADERS || data.len() + ROOM > MAX_MESSAGE {
        return;
    }
    let mut names: Vec<String> = Vec::new();
    for header in message.headers() {
        let known = names.iter().any(|n| same_name(n, header.name()));
        if !known && names.len() < NAMES && !same_name(header.name(), "Content-Length") {
            names.push(header.name().to_owned());
        }
    }
    names.push("X-Absent".to_owned());
    for name in &names {
        edits(&message, name);
    }
    built(&message);
}

/// The bytes are those of the datagram, without CRLFs in front and what is behind the body.
fn unchanged(data: &[u8], message: &Message) {
    let front = data.iter().take_while(|b| b"\r\n".contains(b)).count();
    let bytes = message.to_bytes();
    assert!(data[front..].starts_with(&bytes));
    match message.value("Content-Length") {
        None => assert_eq!(front + bytes.len(), data.len()),
        Some(n) => assert_eq!(n.parse(), Ok(message.body().len())),
    }
    let again = Message::parse(&bytes).expect("what was written is read");
    assert!(again == *message);
    assert!(message.method().is_some() != message.status().is_some());
}

fn values(message: &Message) {
    let source: SocketAddr = ([192, 0, 2, 77], 40_000).into();
    for h in message.headers() {
        let value = h.value();
        assert!(!value.contains(['\n', '\0']), "a value is one line");
        assert!(h.raw().ends_with(b"\n") && !h.name().is_empty());
        for element in list::split(&value, ',') {
            assert!(!element.is_empty());
            via(element, source);
            if let Some(addr) = NameAddr::parse(element) {
                let _ = (addr.param("tag"), addr.param("expires"));
                if let Some(uri) = addr.parsed_uri() {
                    one_uri(&uri);
                }
            }
        }
    }
    if let Some(uri) = message.uri().and_then(Uri::parse) {
        one_uri(&uri);
    }
    let _ = header::cseq(message);
    let expires = header::expires(message);
    assert_eq!(header::granted(message, |_| false), expires.unwrap_or(3600));
    let _ = (header::tag(message, "From"), header::tag(message, "To"));
    for name in ["Security-Client", "Security-Server", "Security-Verify"] {
        if let Some(list) = SecList::from_message(message, name) {
            let _ = list.proposals();
            assert!(list.same(&list));
        }
    }
    if let Some(credentials) = Credentials::from_message(message) {
        assert!(!credentials.answers() || !credentials.nonce.is_empty());
    }
    if let Ok(challenge) = Challenge::from_message(message) {
        assert_eq!(
            gm_sip::aka::split_nonce(&challenge.nonce),
            Some((challenge.rand, challenge.autn))
        );
    }
}

fn one_uri(uri: &Uri) {
    assert!(uri.same_identity(uri));
    if let Some(host) = &uri.host {
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Some(host));
    }
}

/// A marked Via says its true source, once, and all else as before.
fn via(element: &str, source: SocketAddr) {
    let Some(before) = Via::parse(element) else {
        assert_eq!(mark_source(element, source, true), None);
        return;
    };
    let marked = mark_source(element, source, true).expect("a Via");
    let after = Via::parse(&marked).expect("still a Via");
    assert_eq!(after.received(), Some(source.ip()));
    assert_eq!(
        (&after.transport, &after.host, after.port, after.branch()),
        (
            &before.transport,
            &before.host,
            before.port,
            before.branch()
        )
    );
    assert_eq!(after.has_rport(), before.has_rport());
    if before.has_rport() {
        assert_eq!(after.params.get("rport"), Some(source.port().to_string()));
    }
    let others = |via: &Via| {
        let own = |n: &str| n.eq_ignore_ascii_case("received") || n.eq_ignore_ascii_case("rport");
        let params = via.params.iter().filter(|(n, _)| !own(n));
        let owned = params.map(|(n, v)| (n.to_owned(), v.map(str::to_owned)));
        owned.collect::<Vec<_>>()
    };
    assert_eq!(others(&after), others(&before));
}

const CHALLENGES: [&str; 4] = [
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Authentication-Info",
    "Proxy-Authentication-Info",
];

/// Keys leave a response, whatever it looks like, and nothing else does.
fn keys(message: &Message) {
    let mut stripped = message.clone();
    strip_keys(&mut stripped);
    let mut taken = message.clone();
    let found = take_keys(&mut taken);
    assert!(stripped == taken);
    for (old, new) in message.headers().iter().zip(taken.headers()) {
        assert_eq!(old.name(), new.name());
        if !CHALLENGES.iter().any(|n| same_name(n, old.name())) {
            assert_eq!(old.raw(), new.raw());
            continue;
        }
        let left = new.value();
        for part in list::split(&left, ',') {
            let name = part.split('=').next().unwrap_or("").trim();
            let name = name.rsplit(char::is_whitespace).next().unwrap_or("");
            assert!(!name.eq_ignore_ascii_case("ik") && !name.eq_ignore_ascii_case("ck"));
        }
        if let Some(params) = AuthParams::parse(&left) {
            assert_eq!((params.get("ik"), params.get("ck")), (None, None));
        }
    }
    if let Ok((ik, ck)) = found {
        for (name, key) in [("ik", ik.as_bytes()), ("ck", ck.as_bytes())] {
            let mut again = message.clone();
            strip_keys(&mut again);
            assert!(take_keys(&mut again).is_err(), "{name} can be taken once");
            assert_eq!(key.len(), 16);
        }
    }
    let mut marked = message.clone();
    set_integrity_protected(&mut marked, true);
    only_lines_of("Authorization", message, &marked);
    if names_one_user(message) && message.value("Authorization").is_some() {
        let value = marked.value("Authorization").expect("still there");
        let params = AuthParams::parse(&value).expect("Digest");
        assert_eq!(params.get("integrity-protected").as_deref(), Some("yes"));
        assert!(names_one_user(&marked));
        let user = |m: &Message| Credentials::from_message(m).map(|c| (c.username, c.realm));
        assert_eq!(user(&marked), user(message));
    }
}

/// All other lines, their order and the body are the same.
fn only_lines_of(name: &str, old: &Message, new: &Message) {
    let others = |m: &Message| {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for h in m.headers().iter().filter(|h| !same_name(h.name(), name)) {
            all.push(h.raw().to_vec());
        }
        all
    };
    assert_eq!(others(old), others(new));
    assert_eq!(old.body(), new.body());
    assert_eq!(old.start(), new.start());
}

/// What was edited is read as the same lines with the same values.
fn read_back(edited: &Message) {
    let read = Message::parse(&edited.to_bytes()).expect("an edited message is one");
    assert_eq!(read.to_bytes(), edited.to_bytes());
    assert_eq!(read.headers().len(), edited.headers().len());
    for (a, b) in read.headers().iter().zip(edited.headers()) {
        assert_eq!(
            (a.raw(), a.name(), a.value()),
            (b.raw(), b.name(), b.value())
        );
    }
    assert_eq!(read.start(), edited.start());
}

/// Whether the list means the same before and after folds and odd bytes are read.
fn plain(message: &Message, name: &str) -> bool {
    message
        .lines(name)
        .all(|h| std::str::from_utf8(h.raw_value()).is_ok())
}

fn edits(message: &Message, name: &str) {
    let bytes = message.to_bytes();
    let try_one = |f: &dyn Fn(&mut Message)| {
        let mut m = message.clone();
        f(&mut m);
        only_lines_of(name, message, &m);
        read_back(&m);
        m
    };
    let lines = message.lines(name).count();
    let elements = message.elements(name);

    let pushed = try_one(&|m| m.push(name, "a;b=\"c\""));
    assert_eq!(pushed.headers().len(), message.headers().len() + 1);
    let line = format!("{name}: a;b=\"c\"\r\n");
    assert_eq!(
        pushed.headers().last().expect("a line").raw(),
        line.as_bytes()
    );

    let topped = try_one(&|m| m.insert_top(name, "new\r\nEvil: 1"));
    let first = topped.lines(name).next().expect("a line");
    assert_eq!(first.value(), "new  Evil: 1");
    assert_eq!(topped.lines(name).count(), lines + 1);

    let set = try_one(&|m| m.set(name, "only"));
    assert_eq!(set.elements(name), ["only"]);
    assert_eq!(set.lines(name).count(), 1);

    let removed = try_one(&|m| assert_eq!(m.remove(name), lines));
    assert_eq!(removed.headers().len() + lines, message.headers().len());
    assert_eq!(removed.value(name), None);

    let same = try_one(&|m| m.rewrite(name, |_| None));
    assert_eq!(same.to_bytes(), bytes);
    if plain(message, name) {
        let same = try_one(&|m| m.rewrite(name, |v| Some(v.to_owned())));
        assert_eq!(same.to_bytes(), bytes);
    }

    let replaced = try_one(&|m| assert_eq!(m.replace_first_element(name, "one"), lines > 0));
    let mut popped = message.clone();
    let first = popped.remove_first_element(name);
    only_lines_of(name, message, &popped);
    read_back(&popped);
    if message
        .value(name)
        .is_some_and(|v| list::split(&v, ',').next().is_some())
    {
        assert_eq!(first.as_ref(), elements.first());
        assert_eq!(popped.elements(name), elements[1..]);
        assert_eq!(replaced.first_element(name).as_deref(), Some("one"));
        assert_eq!(replaced.elements(name)[1..], elements[1..]);
    } else {
        assert_eq!(first, None);
    }

    if let Some(one) = elements.last() {
        let without = try_one(&|m| m.remove_element(name, one));
        let left: Vec<_> = elements
            .iter()
            .filter(|e| !e.eq_ignore_ascii_case(one))
            .collect();
        assert_eq!(without.elements(name).iter().collect::<Vec<_>>(), left);
    }
}

/// What is built out of a message is a message.
fn built(message: &Message) {
    let mut other = message.clone();
    other.set_uri("sip:new.example");
    assert_eq!(
        message.method().is_some(),
        other.uri() == Some("sip:new.example")
    );
    read_back(&other);
    if message.method().is_some() {
        let answer = Message::response(message, 486, "Busy Here", "t1");
        let read = Message::parse(&answer.to_bytes()).expect("an answer is a message");
        assert_eq!(read.status(), Some(486));
        let vias = |m: &Message| {
            let all: BTreeSet<Vec<u8>> = m.lines("Via").map(|h| h.raw().to_vec()).collect();
            (
                all,
                m.lines("Via").count(),
                m.value("Call-ID").map(|v| v.into_owned()),
            )
        };
        assert_eq!(vias(&read), vias(message));
    }
}
