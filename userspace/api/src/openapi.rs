//! The control interface as an OpenAPI 3.1 document, for programs that are not ours.
//!
//! The document is generated from the types by this module's test:
//! `GMESP_UPDATE=1 cargo test -p gm-api openapi` writes it anew.

/// The document, JSON.
pub const OPENAPI: &str = include_str!("../openapi.json");

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;
    use schemars::{JsonSchema, SchemaGenerator};
    use serde_json::{Value, json};

    use crate::{control, drops, register, transfer};

    /// A parameter of a path or a query: name, where, whether it must be there, what it is.
    type Parameter = (&'static str, &'static str, bool, &'static str);

    const ID: Parameter = (
        "id",
        "path",
        true,
        "Number that POST /v1/register has given.",
    );
    const SET: Parameter = ("set", "path", true, "Number of a set of SAs.");

    struct Operation<'a> {
        method: &'a str,
        path: &'a str,
        summary: &'a str,
        parameters: &'a [Parameter],
        body: Option<Value>,
        answer: Value,
    }

    /// Every operation of the interface, in the order of the documentation.
    fn operations(schemas: &mut SchemaGenerator) -> Vec<Value> {
        let of = |schemas: &mut SchemaGenerator, what: Schema| json!(what(schemas));
        let mut all = Vec::new();
        let mut add = |operation: Operation<'_>| all.push(operation.document());
        add(Operation {
            method: "post",
            path: register::path::REGISTER,
            summary: "A REGISTER has come: what to do with it.",
            parameters: &[],
            body: Some(of(schemas, schema::<register::RegisterRequest>)),
            answer: of(schemas, schema::<register::RegisterReply>),
        });
        add(Operation {
            method: "post",
            path: register::path::RESPONSE,
            summary: "The core has answered a REGISTER: what to do with the answer.",
            parameters: &[ID],
            body: Some(of(schemas, schema::<register::ResponseRequest>)),
            answer: of(schemas, schema::<register::ResponseReply>),
        });
        add(Operation {
            method: "delete",
            path: register::path::REGISTER_ID,
            summary: "A REGISTER comes to nothing: nobody will answer it.",
            parameters: &[ID],
            body: None,
            answer: of(schemas, schema::<register::EndReply>),
        });
        add(Operation {
            method: "post",
            path: register::path::FLOW,
            summary: "A message came through an SA: who may speak over it.",
            parameters: &[],
            body: Some(of(schemas, schema::<register::FlowRequest>)),
            answer: of(schemas, schema::<register::Flow>),
        });
        add(Operation {
            method: "get",
            path: register::path::WAY,
            summary: "From where to where a request to a phone goes.",
            parameters: &[
                (
                    "to",
                    "query",
                    false,
                    "Address and port in the phone's Contact.",
                ),
                (
                    "impi",
                    "query",
                    false,
                    "Private identity, where `to` is absent.",
                ),
            ],
            body: None,
            answer: of(schemas, schema::<register::Way>),
        });
        add(Operation {
            method: "get",
            path: register::path::REGISTRATIONS,
            summary: "Contacts that have SAs.",
            parameters: &[],
            body: None,
            answer: of(schemas, schema::<Vec<register::Registration>>),
        });
        add(Operation {
            method: "delete",
            path: register::path::REGISTRATIONS,
            summary: "The network ends a user's registrations.",
            parameters: &[("impi", "query", true, "Private identity.")],
            body: None,
            answer: of(schemas, schema::<register::EndReply>),
        });
        add(Operation {
            method: "post",
            path: control::path::SA,
            summary: "Install SAs from the text of a SAD.toml: all or none.",
            parameters: &[],
            body: Some(of(schemas, schema::<control::AddRequest>)),
            answer: of(schemas, schema::<control::AddReply>),
        });
        add(Operation {
            method: "get",
            path: control::path::SA,
            summary: "All SAs, or those of some sets, without keys.",
            parameters: &[
                ("from", "query", false, "First number of a set."),
                ("limit", "query", false, "Most sets."),
            ],
            body: None,
            answer: of(schemas, schema::<Vec<control::SaStatus>>),
        });
        add(Operation {
            method: "delete",
            path: control::path::SA,
            summary: "Remove sets: by number, or the one of an SA.",
            parameters: &[
                ("set", "query", false, "Number of the set."),
                (
                    "to",
                    "query",
                    false,
                    "Last number, with set: all from there to here.",
                ),
                ("spi", "query", false, "SPI, decimal or 0x hexadecimal."),
                (
                    "dst",
                    "query",
                    false,
                    "Destination of the ESP packets, with spi.",
                ),
            ],
            body: None,
            answer: of(schemas, schema::<control::RemoveReply>),
        });
        for (path, summary) in [
            ("/v1/sa/{set}/activate", "Outbound of a set goes live."),
            (
                "/v1/sa/{set}/retire",
                "Outbound of a set ends, inbound still accepts.",
            ),
        ] {
            add(Operation {
                method: "post",
                path,
                summary,
                parameters: &[SET],
                body: None,
                answer: of(schemas, schema::<control::StateReply>),
            });
        }
        add(Operation {
            method: "get",
            path: control::path::STATS,
            summary: "Counters since the daemon started.",
            parameters: &[],
            body: None,
            answer: of(schemas, schema::<control::Stats>),
        });
        add(Operation {
            method: "get",
            path: control::path::HEALTH,
            summary: "Is the daemon well.",
            parameters: &[],
            body: None,
            answer: of(schemas, schema::<control::Health>),
        });
        add(Operation {
            method: "post",
            path: control::path::CAPTURE,
            summary: "Start a wire capture. Unix socket only, root or the daemon's user.",
            parameters: &[],
            body: Some(of(schemas, schema::<control::CaptureRequest>)),
            answer: of(schemas, schema::<control::CaptureReply>),
        });
        add(Operation {
            method: "delete",
            path: control::path::CAPTURE,
            summary: "Stop the wire capture.",
            parameters: &[],
            body: None,
            answer: of(schemas, schema::<control::CaptureReply>),
        });
        add(Operation {
            method: "get",
            path: control::path::EVENTS,
            summary: "Steps of registrations as they happen: one JSON object a line.",
            parameters: &[],
            body: None,
            answer: of(schemas, schema::<control::FlowEvent>),
        });
        drops(schemas, &mut add);
        transfer(schemas, &mut add);
        all
    }

    /// Those about dropped packets and workers.
    fn drops(schemas: &mut SchemaGenerator, add: &mut dyn FnMut(Operation<'_>)) {
        const LIMIT: Parameter = ("limit", "query", false, "Most entries.");
        let mut get = |path, summary, parameters: &[Parameter], answer: Schema| {
            add(Operation {
                method: "get",
                path,
                summary,
                parameters,
                body: None,
                answer: json!(answer(schemas)),
            });
        };
        get(
            drops::path::DROPS,
            "Dropped packets by reason, and what to do.",
            &[],
            schema::<drops::DropReport>,
        );
        get(
            drops::path::PREFIXES,
            "Dropped packets by phone: IPv4 address, or IPv6 prefix of 64 bits.",
            &[LIMIT],
            schema::<Vec<drops::PrefixRow>>,
        );
        let address = ("address", "query", false, "Source or destination.");
        get(
            drops::path::RECENT,
            "The last samples of dropped packets, the newest first.",
            &[address, LIMIT],
            schema::<Vec<drops::DropSample>>,
        );
        get(
            drops::path::FOLLOW,
            "Samples of dropped packets as they come: one JSON object a line.",
            &[],
            schema::<drops::DropLine>,
        );
        let address = ("address", "path", true, "Address of a phone.");
        get(
            drops::path::EXPLAIN,
            "What a phone's packets run into, the most probable cause first.",
            &[address],
            schema::<drops::Explanation>,
        );
        get(
            drops::path::WORKERS,
            "How many workers carry packets.",
            &[],
            schema::<drops::Workers>,
        );
        let workers = json!(schema::<drops::Workers>(schemas));
        add(Operation {
            method: "put",
            path: drops::path::WORKERS,
            summary: "Change the number of workers; no SA is lost.",
            parameters: &[],
            body: Some(workers.clone()),
            answer: workers,
        });
    }

    fn transfer(schemas: &mut SchemaGenerator, add: &mut dyn FnMut(Operation<'_>)) {
        let request = json!(schema::<transfer::TransferRequest>(schemas));
        let reply = json!(schema::<transfer::TransferReply>(schemas));
        let paths = [
            (
                transfer::path::ADOPT,
                "Take SAs over that another P-CSCF has in the kernel, with their numbers and windows.",
            ),
            (
                transfer::path::GIVE_BACK,
                "Give SAs that were taken over back to the kernel.",
            ),
        ];
        for (path, summary) in paths {
            add(Operation {
                method: "post",
                path,
                summary,
                parameters: &[],
                body: Some(request.clone()),
                answer: reply.clone(),
            });
        }
    }

    type Schema = fn(&mut SchemaGenerator) -> schemars::Schema;

    fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> schemars::Schema {
        schemas.subschema_for::<T>()
    }

    impl Operation<'_> {
        /// `[path, method, operation]`.
        fn document(self) -> Value {
            let media = if [control::path::EVENTS, drops::path::FOLLOW].contains(&self.path) {
                "application/x-ndjson"
            } else {
                "application/json"
            };
            let parameters: Vec<Value> = self
                .parameters
                .iter()
                .map(|(name, at, required, what)| {
                    json!({ "name": name, "in": at, "required": required,
                        "description": what, "schema": { "type": "string" } })
                })
                .collect();
            let mut operation = json!({
                "summary": self.summary,
                "parameters": parameters,
                "responses": {
                    "200": { "description": "Done.",
                        "content": { media: { "schema": self.answer } } },
                    "default": { "description": "Not done, and why.",
                        "content": { "application/json": { "schema":
                            { "$ref": "#/components/schemas/ErrorBody" } } } },
                },
            });
            if let Some(body) = self.body {
                operation["requestBody"] = json!({ "required": true,
                    "content": { "application/json": { "schema": body } } });
            }
            json!([self.path, self.method, operation])
        }
    }

    fn document() -> Value {
        let mut schemas = SchemaSettings::draft2020_12()
            .with(|s| s.definitions_path = "/components/schemas".into())
            .into_generator();
        schema::<control::ErrorBody>(&mut schemas);
        let mut paths = json!({});
        for operation in operations(&mut schemas) {
            let at = operation[0].as_str().unwrap().to_owned();
            let method = operation[1].as_str().unwrap().to_owned();
            paths[at][method] = operation[2].clone();
        }
        let mut schemas = schemas.take_definitions(true);
        schemas.sort_keys();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "gmespd control interface",
                "version": "1",
                "description": "HTTP and JSON over the control socket, and over loopback TCP with a token where [control] http is configured.",
            },
            "security": [{}, { "token": [] }],
            "paths": paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "schemas": schemas,
            },
        })
    }

    #[test]
    fn the_openapi_document_is_what_the_types_say() {
        let text = format!("{:#}\n", document());
        if std::env::var_os("GMESP_UPDATE").is_some() {
            let at = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
            std::fs::write(at, &text).unwrap();
            return;
        }
        assert!(
            super::OPENAPI == text,
            "openapi.json is not what the types say: GMESP_UPDATE=1 cargo test -p gm-api openapi"
        );
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let document: Value = serde_json::from_str(super::OPENAPI).unwrap();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 30, "{}", references.len());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    out.push(to.clone());
                }
                map.values().for_each(|v| collect(v, out));
            }
            Value::Array(all) => all.iter().for_each(|v| collect(v, out)),
            _ => {}
        }
    }
}
