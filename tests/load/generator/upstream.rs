//! An upstream that costs far less than any gateway before it: fixed answers, bodies thrown away.
//! `/big` is 1 MiB, `/introspect` says of every token that it is good, everything else is 100 bytes.

use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

struct Answers {
    small: Vec<u8>,
    big: Vec<u8>,
    good: Vec<u8>,
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    Small,
    Big,
    Good,
}

/// RFC 7662.
const GOOD: &str = r#"{"active":true,"token_type":"Bearer","sub":"user-1","client_id":"load","scope":"orders:read","aud":"portcullis-load"}"#;

fn answer(kind: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), content].concat()
}

pub(crate) async fn serve(port: u16) -> anyhow::Result<String> {
    let answers = Rc::new(Answers {
        small: answer("text/plain", &[b'x'; 100]),
        big: answer("application/octet-stream", &vec![b'x'; 1 << 20]),
        good: answer("application/json", GOOD.as_bytes()),
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Rc::clone(&answers);
        tokio::task::spawn_local(async move {
            // A gateway that hangs up is nothing to report.
            let _closed = connection(stream, &answers).await;
        });
    }
}

/// What stands between the bytes read so far and the next answer.
enum Body {
    None,
    Left(usize),
    Chunked,
}

async fn connection(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(262_144);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let (wanted, mut body) = head(buffer.get(..end).unwrap_or_default());
        buffer.drain(..end);
        loop {
            match &mut body {
                Body::None => break,
                Body::Left(left) => {
                    let taken = buffer.len().min(*left);
                    *left -= taken;
                    buffer.drain(..taken);
                    if *left == 0 {
                        break;
                    }
                }
                Body::Chunked if buffer.ends_with(b"0\r\n\r\n") => {
                    buffer.clear();
                    break;
                }
                Body::Chunked => {
                    let kept = buffer.len().saturating_sub(8);
                    buffer.drain(..kept);
                }
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        stream
            .write_all(match wanted {
                Wanted::Small => &answers.small,
                Wanted::Big => &answers.big,
                Wanted::Good => &answers.good,
            })
            .await?;
    }
}

/// What is wanted, and what body follows.
fn head(bytes: &[u8]) -> (Wanted, Body) {
    let target = bytes.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let wanted = match target {
        b"/introspect" => Wanted::Good,
        _ if target.starts_with(b"/big") => Wanted::Big,
        _ => Wanted::Small,
    };
    if bytes.starts_with(b"GET ") {
        return (wanted, Body::None);
    }
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let fields = || text.lines().filter_map(|line| line.split_once(':'));
    if fields().any(|(name, _)| name == "transfer-encoding") {
        return (wanted, Body::Chunked);
    }
    let length =
        fields().find(|(name, _)| *name == "content-length").and_then(|(_, v)| v.trim().parse().ok());
    (wanted, length.map_or(Body::None, Body::Left))
}
