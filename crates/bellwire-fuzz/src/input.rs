//! Bytes as a request: `NUMBER METHOD URL`, header lines, an empty line, the body. Readable, and whole after most mutations. The number
//! says whose request it is.

use bellwire_verify::Request;

/// A request made of fuzzed bytes.
pub struct Input<'a> {
    pub number: usize,
    pub method: String,
    pub url: String,
    headers: Vec<(String, &'a [u8])>,
    pub body: &'a [u8],
}

impl<'a> Input<'a> {
    /// Every input is a request of some kind.
    pub fn read(data: &'a [u8]) -> Self {
        let (head, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => (&data[..at], &data[at + 2..]),
            None => (data, &[][..]),
        };
        let mut lines = head.split(|byte| *byte == b'\n');
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let mut words = first.splitn(3, ' ');
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let method = words.next().unwrap_or("POST").to_owned();
        let url = words.next().unwrap_or("https://hooks.example.com/in/x").to_owned();
        let headers = lines.filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            Some((String::from_utf8_lossy(&line[..at]).into_owned(), line[at + 1..].trim_ascii()))
        });
        Self { number, method, url, headers: headers.collect(), body }
    }

    pub fn with_request<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self.headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let peer = Some([203, 0, 113, 9].into());
        f(&Request { method: &self.method, url: &self.url, headers: &headers, body: self.body, peer })
    }
}

/// The bytes of which [`Input::read`] makes this request.
pub fn write(number: usize, request: &Request<'_>) -> Vec<u8> {
    let mut out = format!("{number} {} {}\n", request.method, request.url).into_bytes();
    for (name, value) in request.headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(request.body);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Broken: the seeds are not the requests that they were made of, so that nothing genuine is ever tried.
    #[test]
    fn what_is_written_is_read_again() {
        let headers: [(&str, &[u8]); 2] = [("A", b"1: 2"), ("B", b"\xff")];
        let request = Request { method: "PUT", url: "https://h.test/?a=b c", headers: &headers, body: b"x\n\ny", peer: None };
        let bytes = write(7, &request);
        let input = Input::read(&bytes);
        input.with_request(|read| {
            assert_eq!((input.number, read.method, read.url, read.body), (7, "PUT", "https://h.test/?a=b c", &b"x\n\ny"[..]));
            assert_eq!(read.headers, headers);
        });
    }
}
