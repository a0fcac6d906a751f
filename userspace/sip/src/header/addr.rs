//! URIs and name-addr (RFC 3261 clauses 19.1 and 20.10).

use std::borrow::Cow;

use super::list::{self, Params, unquote};
use super::via::{Host, host_port};

/// A SIP, SIPS or tel URI, as far as the Gm link reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// In lower case.
    pub scheme: &'static str,
    /// The part before the at sign without a password; the number of a tel URI.
    pub user: Option<String>,
    /// The host; none in a tel URI.
    pub host: Option<Host>,
    /// The port when written.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params,
}

/// The same, of which the text is somebody else's.
pub(crate) struct UriParts<'a> {
    pub scheme: &'static str,
    pub user: Option<&'a str>,
    pub host: Option<Host>,
    pub port: Option<u16>,
    pub params: &'a str,
}

impl<'a> UriParts<'a> {
    pub fn parse(text: &'a str) -> Option<UriParts<'a>> {
        let (scheme, rest) = text.trim().split_once(':')?;
        let known = ["sip", "tel", "sips"];
        let scheme = known.into_iter().find(|s| s.eq_ignore_ascii_case(scheme))?;
        if scheme == "tel" {
            let (number, params) = rest.split_once(';').unwrap_or((rest, ""));
            return (!number.is_empty()).then_some(UriParts {
                scheme,
                user: Some(number),
                host: None,
                port: None,
                params,
            });
        }
        // A user may hold ? and ; but no at sign, and neither may what follows: with two
        // of them readers disagree about who it is.
        let (user, rest) = match rest.split_once('@') {
            Some((_, rest)) if rest.contains('@') => return None,
            Some((user, rest)) => (user.split(':').next(), rest),
            None => (None, rest),
        };
        let rest = rest.split_once('?').map_or(rest, |(uri, _)| uri);
        let (host, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = host_port(host)?;
        Some(UriParts {
            scheme,
            user,
            host: Some(host),
            port,
            params,
        })
    }

    pub fn same_identity(&self, other: &UriParts<'_>) -> bool {
        (self.scheme, self.user, &self.host, self.port)
            == (other.scheme, other.user, &other.host, other.port)
    }
}

impl Uri {
    /// Parses a URI without angle brackets.
    pub fn parse(text: &str) -> Option<Uri> {
        let parts = UriParts::parse(text)?;
        Some(Uri {
            scheme: parts.scheme,
            user: parts.user.map(str::to_owned),
            host: parts.host,
            port: parts.port,
            params: Params::parse(parts.params),
        })
    }

    /// Whether two URIs name one public identity: scheme, user, host and port; parameters do not count.
    pub fn same_identity(&self, other: &Uri) -> bool {
        (&self.scheme, &self.user, &self.host, &self.port)
            == (&other.scheme, &other.user, &other.host, &other.port)
    }
}

/// `"Name" <uri>;params` or `uri;params`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name without quotes.
    pub display: Option<String>,
    /// The URI as written.
    pub uri: String,
    /// Header parameters (tag, expires).
    pub params: Params,
}

/// The same, of which the text is somebody else's.
pub(crate) struct AddrParts<'a> {
    /// As written.
    display: &'a str,
    pub uri: &'a str,
    params: &'a str,
}

impl<'a> AddrParts<'a> {
    pub fn parse(text: &'a str) -> Option<AddrParts<'a>> {
        let text = text.trim();
        let open = list::find(text.as_bytes(), b'<');
        if open < text.len() {
            let close = open + text[open..].find('>')?;
            if !is_display(text[..open].trim()) {
                return None;
            }
            return Some(AddrParts {
                display: &text[..open],
                uri: text[open + 1..close].trim(),
                params: &text[close + 1..],
            });
        }
        let (uri, params) = text.split_once(';').unwrap_or((text, ""));
        let uri = uri.trim();
        let plain = !uri.is_empty() && !uri.contains(['<', '>', '"']);
        plain.then_some(AddrParts {
            display: "",
            uri,
            params,
        })
    }

    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        list::param(self.params, name)
    }

    pub fn to_owned(&self) -> NameAddr {
        let display = Some(unquote(self.display)).filter(|d| !d.is_empty());
        NameAddr {
            display: display.map(Cow::into_owned),
            uri: self.uri.to_owned(),
            params: Params::parse(self.params),
        }
    }
}

impl NameAddr {
    /// Parses one element of From, To, Contact, Route, Path or P-Associated-URI.
    pub fn parse(text: &str) -> Option<NameAddr> {
        AddrParts::parse(text).map(|parts| parts.to_owned())
    }

    /// A header parameter, quotes taken off.
    pub fn param(&self, name: &str) -> Option<String> {
        self.params.get(name)
    }

    /// The URI taken apart.
    pub fn parsed_uri(&self) -> Option<Uri> {
        Uri::parse(&self.uri)
    }
}

/// A quoted string, or words without what could make them another address.
fn is_display(text: &str) -> bool {
    match text.strip_prefix('"') {
        Some(rest) => closes(rest),
        None => !text.contains([':', ';', ',', '"', '>']),
    }
}

/// Whether the quoted string that has begun ends at the end of the text.
fn closes(text: &str) -> bool {
    let mut escaped = false;
    let end = text.bytes().position(|b| {
        let end = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        end
    });
    end.is_some_and(|end| end + 1 == text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "\"A, <B>\" <sip:u@h.example;lr>;tag=1",
        "sip:u@h.example;lr",
        Some("1")
    )]
    #[case("<sip:u@h>", "sip:u@h", None)]
    #[case("sip:u@h.example;tag=7", "sip:u@h.example", Some("7"))]
    #[case(
        "<sip:[2001:db8::1]:5062;transport=udp>;expires=5",
        "sip:[2001:db8::1]:5062;transport=udp",
        None
    )]
    fn name_addrs(#[case] text: &str, #[case] uri: &str, #[case] tag: Option<&str>) {
        let addr = NameAddr::parse(text).expect("an address");
        assert_eq!(addr.uri, uri);
        assert_eq!(addr.param("tag").as_deref(), tag);
    }

    #[test]
    fn uris() {
        let uri = Uri::parse("SIP:user:pw@[2001:db8::1]:5062;lr?x=y").expect("a URI");
        assert_eq!(uri.user.as_deref(), Some("user"));
        assert_eq!(uri.port, Some(5062));
        assert!(uri.params.get("lr").is_some());
        assert_eq!(
            Uri::parse("tel:+1555;phone-context=x")
                .and_then(|u| u.user)
                .as_deref(),
            Some("+1555")
        );
        assert_eq!(Uri::parse("mailto:a@b"), None);
        let odd = Uri::parse("sip:a?b;c@h.example;lr?x=y").expect("a URI");
        assert_eq!(odd.user.as_deref(), Some("a?b;c"));
        assert_eq!(odd.host, Some(Host::Name("h.example".into())));
        for two in ["sip:a@h.example?x=@evil.example", "sip:a@b@h.example"] {
            assert_eq!(Uri::parse(two), None, "{two}");
        }
        let a = Uri::parse("sip:a@Home.Example").expect("a URI");
        assert!(a.same_identity(&Uri::parse("sip:a@home.example;user=phone").expect("a URI")));
    }
}
