//! The interface over a real Unix socket, asked by the real gmespctl. The data
//! plane behind it is a fake that keeps a list; the real one is covered by the
//! tests in network namespaces.

mod drops;
mod requests;
mod sas;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::App;
use crate::config::Config;
use crate::events::Events;
use crate::plane::Plane;
use crate::sets::Sets;
use crate::socket::ControlSocket;
use crate::testing::{Fake, assert_no_keys, log_everything};

struct Daemon {
    app: Arc<App>,
    fake: Arc<Fake>,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    _socket: ControlSocket,
}

impl Daemon {
    fn start() -> Daemon {
        log_everything();
        let dir = tempfile::tempdir().unwrap();
        let text = "[gm]\nuplinks = [\"gmtest0\"]\naddresses = [\"192.0.2.1\"]\n\
                    server_ports = [5064]\nclient_ports = [5065]\nreplay_window = 128\n";
        let config = Config::parse(text, Path::new("t.toml")).unwrap();
        let fake = Arc::new(Fake::default());
        let sets = Sets::new(Arc::clone(&fake) as Arc<dyn Plane>);
        let app = App::new(config, sets, Events::new());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (socket, listener) =
            ControlSocket::bind(&dir.path().join("control.sock"), 0o600, None).unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::from_std(listener).unwrap()
        };
        runtime.spawn(super::serve(Arc::clone(&app), listener));
        Daemon {
            app,
            fake,
            dir,
            runtime,
            _socket: socket,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// gmespctl: exit code, output, errors.
    fn ctl(&self, args: &[&str]) -> (u8, String, String) {
        let socket = self.socket().display().to_string();
        let all = ["gmespctl", "--socket", &socket]
            .into_iter()
            .chain(args.iter().copied());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = gmespctl::run(all, &mut std::io::empty(), &mut out, &mut err);
        let (out, err) = (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        );
        for text in [&out, &err] {
            assert_no_keys(text);
        }
        (code, out, err)
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.ctl(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// One request in plain HTTP: the whole answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_no_keys(&answer);
        answer
    }

    fn post(&self, path: &str, body: &str) -> String {
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}
