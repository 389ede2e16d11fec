//! A small static server for one machine: GET and HEAD, byte ranges, no special headers, as a plain host serves the site.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Serves `folder` on this machine only, until the program is ended.
pub(crate) fn serve(folder: &Path, port: Option<u16>) -> Result<()> {
    let listener = listen(port)?;
    println!("\nServing {}\n\n    http://{}/\n\nCtrl-C ends it.", folder.display(), listener.local_addr()?);
    for stream in listener.incoming() {
        let folder = folder.to_owned();
        std::thread::spawn(move || {
            // A browser that goes away in the middle of an answer is no event.
            let _ = stream.and_then(|stream| answer(&stream, &folder));
        });
    }
    Ok(())
}

/// The port asked for, or else the first free one from 8080 on.
fn listen(port: Option<u16>) -> Result<TcpListener> {
    let ports = port.map_or(8080..=8099, |port| port..=port);
    let mut last = None;
    for port in ports {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("no port to listen on; --port N chooses one"),
        None => bail!("no port to listen on"),
    }
}

/// Reads one request and answers it; each connection carries one.
fn answer(stream: &TcpStream, folder: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(stream.take(64 * 1024)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != "GET" && method != "HEAD" {
        return refuse(stream, "405 Method Not Allowed");
    }
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let Some(mut path) = local_path(folder, target) else { return refuse(stream, "404 Not Found") };
    if path.is_dir() {
        if !target.ends_with('/') {
            return redirect(stream, &format!("{target}/"));
        }
        path.push("index.html");
    }
    match File::open(&path) {
        Ok(file) => send(stream, file, &path, range.as_deref(), method == "HEAD"),
        Err(_) => refuse(stream, "404 Not Found"),
    }
}

/// Sends a file, or the range of it that was asked for.
fn send(
    mut stream: &TcpStream,
    mut file: File,
    path: &Path,
    range: Option<&str>,
    head: bool,
) -> io::Result<()> {
    let length = file.metadata()?.len();
    let (status, bytes) = match range.map(|range| byte_range(range, length)) {
        None | Some(Requested::Whole) => ("200 OK", 0..length),
        Some(Requested::Part(part)) => ("206 Partial Content", part),
        Some(Requested::Outside) => {
            let header = format!("Content-Range: bytes */{length}\r\nContent-Length: 0\r\nConnection: close");
            return write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\n{header}\r\n\r\n");
        }
    };
    let mut header = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n\
         Cache-Control: no-cache\r\nConnection: close\r\n",
        media_type(path),
        bytes.end - bytes.start,
    );
    if status.starts_with("206") {
        header += &format!("Content-Range: bytes {}-{}/{length}\r\n", bytes.start, bytes.end - 1);
    }
    stream.write_all(header.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if !head {
        file.seek(SeekFrom::Start(bytes.start))?;
        io::copy(&mut file.take(bytes.end - bytes.start), &mut stream)?;
    }
    Ok(())
}

fn refuse(mut stream: &TcpStream, status: &str) -> io::Result<()> {
    let length = status.len() + 1;
    let header = format!("Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close");
    write!(stream, "HTTP/1.1 {status}\r\n{header}\r\n\r\n{status}\n")
}

fn redirect(mut stream: &TcpStream, to: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 301 Moved Permanently\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// The file that a request names, if it lies below `folder`.
fn local_path(folder: &Path, target: &str) -> Option<PathBuf> {
    let decoded = percent_decoded(target.strip_prefix('/')?)?;
    let mut path = folder.to_owned();
    for part in decoded.split('/').filter(|part| !part.is_empty()) {
        if part == ".." || part.contains(['\\', ':', '\0']) {
            return None;
        }
        path.push(part);
    }
    fs::metadata(&path).ok().map(|_| path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What a Range header asks for.
#[derive(Debug, PartialEq)]
enum Requested {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n`; several ranges at once, and anything else, get the whole file.
fn byte_range(header: &str, length: u64) -> Requested {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Requested::Whole;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..length,
        (Err(_), Ok(count)) if first.trim().is_empty() => length.saturating_sub(count)..length,
        _ => return Requested::Whole,
    };
    if range.is_empty() { Requested::Outside } else { Requested::Part(range) }
}

/// Modules and wasm are refused by browsers under any other type than these.
fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "md" | "txt" | "ts" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_defines_them() {
        for (header, expected) in [
            ("bytes=0-0", Requested::Part(0..1)),
            ("bytes=2-5", Requested::Part(2..6)),
            ("bytes=2-", Requested::Part(2..10)),
            ("bytes=-3", Requested::Part(7..10)),
            ("bytes=-30", Requested::Part(0..10)),
            ("bytes=9-99", Requested::Part(9..10)),
            ("bytes=10-", Requested::Outside),
            ("bytes=10-12", Requested::Outside),
            ("bytes=-0", Requested::Outside),
            ("bytes=5-2", Requested::Whole),
            ("bytes=0-1,4-5", Requested::Whole),
            ("lines=0-1", Requested::Whole),
        ] {
            assert_eq!(byte_range(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn requests_stay_inside_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(local_path(folder, "/src/serve.rs"), Some(folder.join("src/serve.rs")));
        assert_eq!(local_path(folder, "/src/%73erve.rs"), Some(folder.join("src/serve.rs")));
        for outside in
            ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/src/../../Cargo.toml", "src/serve.rs", "/none"]
        {
            assert_eq!(local_path(folder, outside), None, "{outside}");
        }
    }

    #[test]
    fn a_range_of_a_file_is_served() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let server = std::thread::spawn(move || -> io::Result<()> {
            let (stream, _) = listener.accept()?;
            answer(&stream, Path::new(env!("CARGO_MANIFEST_DIR")))
        });
        let mut client = TcpStream::connect(address)?;
        client.write_all(b"GET /Cargo.toml?v=1 HTTP/1.1\r\nHost: x\r\nrange: bytes=1-7\r\n\r\n")?;
        let mut response = String::new();
        client.read_to_string(&mut response)?;
        server.join().expect("the server thread does not panic")?;
        assert!(response.starts_with("HTTP/1.1 206 "), "{response}");
        assert!(response.contains("Content-Range: bytes 1-7/"), "{response}");
        assert!(response.ends_with("\r\n\r\npackage"), "{response}");
        Ok(())
    }
}
