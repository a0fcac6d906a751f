//! What the proxy says about a SIP message, read as gm-sip reads messages: there is
//! one reading of Via, Contact and credentials, whatever door they come through.

use gm_api::control::ApiError;
use gm_api::register::{RegisterRequest, ResponseRequest};
use gm_sip::Message;
use gm_sip::aka::base64;
use zeroize::Zeroizing;

/// Longest field, in bytes: credentials have some hundred, lists of six mechanisms 800.
const MAX_FIELD: usize = 8192;
/// Most values of one header field.
const MAX_VALUES: usize = 32;
/// Largest SIP message that a proxy passes on, in bytes.
const MAX_MESSAGE: usize = 65_535;

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new("bad-request", message).hint("GET /v1/openapi.json describes the bodies")
}

/// The REGISTER that the request carries or describes.
pub fn register(request: &RegisterRequest) -> Result<Message, ApiError> {
    if let Some(sip) = &request.sip {
        let described = request.via.is_some()
            || request.to.is_some()
            || request.contact.is_some()
            || request.authorization.is_some()
            || !request.security_client.is_empty()
            || !request.security_verify.is_empty();
        if described {
            return Err(bad(
                "sip and single fields are both there: give one of them",
            ));
        }
        let message = whole(sip)?;
        if message.method() != Some("REGISTER") {
            return Err(bad("sip is not a REGISTER"));
        }
        return Ok(message);
    }
    let mut message = Message::request("REGISTER", "sip:register");
    let via = request.via.as_deref();
    let to = request.to.as_deref();
    for (name, value) in [
        ("Via", Some(via.ok_or_else(|| bad("via is missing"))?)),
        ("From", to),
        ("To", Some(to.ok_or_else(|| bad("to is missing"))?)),
        ("Contact", request.contact.as_deref()),
        ("Authorization", request.authorization.as_deref()),
    ] {
        if let Some(value) = value {
            push(&mut message, name, value)?;
        }
    }
    if let Some(expires) = request.expires {
        message.push("Expires", &expires.to_string());
    }
    for (name, values) in [
        ("Security-Client", &request.security_client),
        ("Security-Verify", &request.security_verify),
    ] {
        if values.len() > MAX_VALUES {
            return Err(bad(format!("more than {MAX_VALUES} values of {name}")));
        }
        for value in values {
            push(&mut message, name, value)?;
        }
    }
    Ok(message)
}

/// The core's response that the request carries or describes, with its keys.
pub fn response(request: &ResponseRequest) -> Result<Message, ApiError> {
    if !(100..700).contains(&request.status) {
        return Err(bad("status is no SIP status"));
    }
    if let Some(sip) = &request.sip {
        if request.www_authenticate.is_some() || request.nonce.is_some() {
            return Err(bad(
                "sip and single fields are both there: give one of them",
            ));
        }
        let message = whole(sip)?;
        if message.status() != Some(request.status) {
            return Err(bad("sip is not a response with this status"));
        }
        return Ok(message);
    }
    let asked = Message::request("REGISTER", "sip:register");
    let mut message = Message::response(&asked, request.status, "As told", "door");
    let challenge = match (&request.www_authenticate, &request.nonce) {
        (Some(_), Some(_)) => {
            return Err(bad(
                "www_authenticate and nonce are both there: give one of them",
            ));
        }
        (Some(header), None) => Some(Zeroizing::new(header.clone())),
        (None, Some(nonce)) => {
            let (Some(ik), Some(ck)) = (&request.ik, &request.ck) else {
                return Err(bad("nonce without ik and ck"));
            };
            if [nonce, ik, ck].iter().any(|v| v.contains(['"', '\\'])) {
                return Err(bad("nonce, ik and ck hold no quotes"));
            }
            // Into one buffer, so that no half-written copy stays behind.
            let mut header = Zeroizing::new(String::with_capacity(256 + nonce.len()));
            for part in [
                "Digest realm=\"gm\", algorithm=AKAv1-MD5, nonce=\"",
                nonce,
                "\", ik=\"",
                ik,
                "\", ck=\"",
                ck,
                "\"",
            ] {
                header.push_str(part);
            }
            Some(header)
        }
        (None, None) => None,
    };
    if let Some(challenge) = challenge {
        push(&mut message, "WWW-Authenticate", &challenge)?;
    }
    if request.associated.len() > MAX_VALUES {
        return Err(bad(format!("more than {MAX_VALUES} associated identities")));
    }
    for identity in &request.associated {
        push(&mut message, "P-Associated-URI", identity)?;
    }
    Ok(message)
}

/// A whole message out of base64.
fn whole(text: &str) -> Result<Message, ApiError> {
    if text.len() > MAX_MESSAGE.div_ceil(3) * 4 {
        return Err(bad(format!("sip is longer than {MAX_MESSAGE} bytes")));
    }
    let bytes = base64::decode(text).ok_or_else(|| bad("sip is not base64"))?;
    Message::parse(&Zeroizing::new(bytes)).map_err(|error| bad(format!("sip: {error}")))
}

/// A field may not bring a second one along.
fn push(message: &mut Message, name: &str, value: &str) -> Result<(), ApiError> {
    if value.len() > MAX_FIELD {
        return Err(bad(format!("{name} is longer than {MAX_FIELD} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(format!("{name} holds a control character")));
    }
    message.push(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> RegisterRequest {
        RegisterRequest {
            via: Some("SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK1".into()),
            to: Some("<sip:alice@ims.example>".into()),
            contact: Some("<sip:192.0.2.7:6100>".into()),
            expires: Some(600),
            security_client: vec!["tls".into(), "ipsec-3gpp;alg=x".into()],
            ..RegisterRequest::default()
        }
    }

    #[test]
    fn fields_and_a_whole_message_read_the_same() {
        let message = register(&described()).unwrap();
        assert_eq!(message.elements("Security-Client").len(), 2);
        assert_eq!(gm_sip::header::expires(&message), Some(600));
        let sip = RegisterRequest {
            sip: Some(base64::encode(&message.to_bytes())),
            ..RegisterRequest::default()
        };
        assert_eq!(register(&sip).unwrap().to_bytes(), message.to_bytes());
    }

    #[test]
    fn a_field_cannot_bring_a_second_one_along() {
        let mut request = described();
        request.to = Some("<sip:a@b>\r\nAuthorization: Digest username=\"c\"".into());
        let error = register(&request).unwrap_err();
        assert!(error.message.contains("control character"), "{error}");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_with_words() {
        let says = |request: RegisterRequest, what: &str| {
            let error = register(&request).unwrap_err();
            assert_eq!(error.code, "bad-request");
            assert!(error.message.contains(what), "{error}");
        };
        says(RegisterRequest::default(), "via is missing");
        let mut both = described();
        both.sip = Some("AAAA".into());
        says(both, "give one of them");
        let of = |sip: &str| RegisterRequest {
            sip: Some(sip.into()),
            ..RegisterRequest::default()
        };
        says(of("*"), "not base64");
        let invite = Message::request("INVITE", "sip:a@b").to_bytes();
        says(of(&base64::encode(&invite)), "not a REGISTER");
        let mut many = described();
        many.security_client = vec!["tls".into(); MAX_VALUES + 1];
        says(many, "values");
        let mut long = described();
        long.contact = Some("x".repeat(MAX_FIELD + 1));
        says(long, "longer");
    }

    #[test]
    fn keys_come_as_a_header_field_or_one_by_one() {
        let mut request = ResponseRequest::default();
        request.status = 401;
        request.nonce = Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into());
        let error = response(&request).unwrap_err();
        assert!(error.message.contains("without ik"), "{error}");
        request.ik = Some("00112233445566778899aabbccddeeff".into());
        request.ck = Some("ffeeddccbbaa99887766554433221100".into());
        let mut message = response(&request).unwrap();
        assert!(gm_sip::aka::take_keys(&mut message).is_ok());
        request.ik = Some("00\", username=\"x".into());
        assert!(response(&request).is_err());
    }
}
