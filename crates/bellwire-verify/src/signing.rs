//! Making a genuine request of a provider: for tests of receivers, for examples, and for senders who follow a preset.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::credentials::Credentials;
use crate::encoding::{Encoding, percent_encode};
use crate::place::{Place, Pointer};
use crate::preset::{AlgorithmRule, Content, JwtRule, Layout, Preset, RequireCheck, Scheme, SignatureRule};
use crate::request::{Request, View};
use crate::{Reason, Refusal};

/// How long signed tokens are good for.
const TOKEN_SECONDS: u64 = 300;

/// A signed request. Send headers, URL and body as they are here: any of them may hold the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub peer: Option<IpAddr>,
}

impl Signed {
    fn new(request: &Request<'_>) -> Self {
        Self {
            method: request.method.to_owned(),
            url: request.url.to_owned(),
            headers: request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
            body: request.body.to_vec(),
            peer: request.peer,
        }
    }

    /// Calls `f` with it as a request, as a receiver would see it.
    pub fn with_request<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        f(&Request { method: &self.method, url: &self.url, headers: &headers, body: &self.body, peer: self.peer })
    }

    fn set_header(&mut self, name: &str, value: String) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into_bytes()));
    }

    fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn set(&mut self, place: &Place, value: &str, header: Option<String>) -> Result<(), Refusal> {
        let cannot = || Refusal::at(Reason::CannotSign, place.to_string());
        match place {
            Place::Header(_) => {
                let name = header.ok_or_else(cannot)?;
                // Numbered headers begin at 1.
                let name = name.strip_suffix('*').map_or(name.clone(), |prefix| format!("{prefix}1"));
                self.set_header(&name, value.to_owned());
            }
            Place::Bearer => self.set_header("Authorization", format!("Bearer {value}")),
            Place::Basic => self.set_header("Authorization", format!("Basic {}", Encoding::Base64.encode(value.as_bytes()))),
            Place::Query(name) => {
                let separator = if self.url.contains('?') { '&' } else { '?' };
                self.url.push_str(&format!("{separator}{}={}", percent_encode(name), percent_encode(value)));
            }
            Place::Url => {
                let at = self.url.find(['?', '#']).unwrap_or(self.url.len());
                let slash = if self.url[..at].ends_with('/') { "" } else { "/" };
                self.url.insert_str(at, &format!("{slash}{}", percent_encode(value)));
            }
            Place::Json(pointer) => {
                let mut json: Value = serde_json::from_slice(&self.body).map_err(|_| cannot())?;
                set_json(&mut json, pointer.tokens(), value).ok_or_else(cannot)?;
                self.body = json.to_string().into_bytes();
            }
            Place::RawJson(_) | Place::Field(_) | Place::Setting(_) => return Err(cannot()),
            Place::Form(name, None) => {
                let text = String::from_utf8(std::mem::take(&mut self.body)).map_err(|_| cannot())?;
                let start = format!("{}=", percent_encode(name));
                let kept = text.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with(&start));
                let own = format!("{start}{}", percent_encode(value));
                self.body = kept.chain(std::iter::once(own.as_str())).collect::<Vec<_>>().join("&").into_bytes();
            }
            Place::Form(..) => return Err(cannot()),
            Place::Multipart(name, pointer) => self.set_multipart(name, pointer.as_ref(), value).ok_or_else(cannot)?,
            Place::Xml(name) => {
                let text = String::from_utf8(std::mem::take(&mut self.body)).map_err(|_| cannot())?;
                let (head, rest) = text.split_once(&format!("<{name}>")).ok_or_else(cannot)?;
                let (_, tail) = rest.split_once(&format!("</{name}>")).ok_or_else(cannot)?;
                self.body = format!("{head}<{name}>{value}</{name}>{tail}").into_bytes();
            }
            Place::Body => self.body = value.as_bytes().to_vec(),
        }
        Ok(())
    }

    fn set_multipart(&mut self, name: &str, pointer: Option<&Pointer>, value: &str) -> Option<()> {
        let text = self.with_request(|request| {
            let view = View::new(*request, None);
            view.multipart()?.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone())
        })?;
        let new = match pointer {
            Some(pointer) => {
                let mut json: Value = serde_json::from_str(&text).ok()?;
                set_json(&mut json, pointer.tokens(), value)?;
                json.to_string()
            }
            None => value.to_owned(),
        };
        self.body = String::from_utf8(std::mem::take(&mut self.body)).ok()?.replacen(&text, &new, 1).into_bytes();
        Some(())
    }
}

/// Sets the value that a pointer stands for, in every element where it says `*`. Numbers stay numbers.
fn set_json(json: &mut Value, tokens: &[String], text: &str) -> Option<()> {
    let Some((token, rest)) = tokens.split_first() else {
        *json = match json {
            Value::Number(_) => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
            _ => Value::from(text),
        };
        return Some(());
    };
    match json {
        Value::Array(elements) if token == "*" => elements.iter_mut().try_for_each(|element| set_json(element, rest, text)),
        Value::Array(elements) => set_json(elements.get_mut(token.parse::<usize>().ok()?)?, rest, text),
        Value::Object(members) => {
            let fallback = if rest.is_empty() { Value::from("") } else { Value::Object(Map::new()) };
            set_json(members.entry(token.as_str()).or_insert(fallback), rest, text)
        }
        _ => None,
    }
}

impl Preset {
    /// Signs a request as the provider would. The first secret signs; for public-key schemes it is the private key (PKCS#8 in PEM, or
    /// `whsk_`). What the provider always sends and the request lacks is taken from [`Preset::example`].
    ///
    /// # Errors
    /// [`Reason::CannotSign`] where this crate has no way to sign (signatures over SHA-1 with public keys, a body that has no place for
    /// the signature), and those of [`Preset::verify`] for what is missing.
    pub fn sign(&self, request: &Request<'_>, credentials: &Credentials, now_s: u64) -> Result<Signed, Refusal> {
        let secret = credentials.secrets.first().filter(|secret| !secret.trim().is_empty());
        let secret = secret.ok_or_else(|| Refusal::new(Reason::SecretMissing))?;
        let mut draft = Signed::new(request);
        self.fill_required(&mut draft, credentials)?;
        match &self.scheme {
            Scheme::Token(places) => {
                let place = places.first().ok_or_else(|| Refusal::new(Reason::CannotSign))?;
                let header = self.header_of(place, &draft, credentials);
                draft.set(place, secret, header)?;
            }
            Scheme::Jwt(rule) => self.sign_jwt(rule, &mut draft, secret, credentials, now_s)?,
            Scheme::Signature(rule) => self.sign_content(rule, &mut draft, secret, credentials, now_s)?,
        }
        Ok(draft)
    }

    fn header_of(&self, place: &Place, draft: &Signed, credentials: &Credentials) -> Option<String> {
        draft.with_request(|request| {
            place.header_name(&self.scope(&View::new(*request, None), credentials, &[])).map(str::to_owned)
        })
    }

    /// Headers and values that the signature covers or that are checked.
    fn fill_required(&self, draft: &mut Signed, credentials: &Credentials) -> Result<(), Refusal> {
        let example = self.example();
        let mut needed: Vec<&str> = vec!["content-type"];
        if let Scheme::Signature(rule) = &self.scheme {
            match &rule.content {
                Content::Templates(templates) => {
                    let places = templates.iter().flat_map(|template| template.places()).flat_map(|places| &places.0);
                    needed.extend(
                        places.filter_map(|place| if let Place::Header(name) = place { Some(name.as_str()) } else { None }),
                    );
                }
                Content::Hook(_) => needed.extend(example.headers.iter().map(|(name, _)| *name)),
            }
        }
        let certificate = self.certificate.iter().map(|rule| &rule.url);
        for place in self.requires.iter().map(|rule| &rule.at).chain(certificate) {
            if let Place::Header(name) = place {
                needed.push(name);
            }
        }
        for (name, value) in &example.headers {
            if needed.iter().any(|needed| needed.eq_ignore_ascii_case(name)) && !draft.has_header(name) {
                draft.set_header(name, (*value).to_owned());
            }
        }
        for rule in &self.requires {
            let RequireCheck::Equals(expected) = &rule.check else { continue };
            let value =
                draft.with_request(|request| expected.render_text(&self.scope(&View::new(*request, None), credentials, &[])));
            if let (Place::Header(name), Ok(value)) = (&rule.at, value) {
                draft.set_header(name, value);
            }
        }
        Ok(())
    }

    fn sign_content(
        &self,
        rule: &SignatureRule,
        draft: &mut Signed,
        secret: &str,
        credentials: &Credentials,
        now_s: u64,
    ) -> Result<(), Refusal> {
        let cannot = || Refusal::new(Reason::CannotSign);
        let place = rule.at.first().ok_or_else(cannot)?;
        let mut fields = self.example().fields;
        if let Some(timestamp) = &rule.timestamp {
            let text = timestamp.unit.format(now_s);
            match timestamp.at.0.first() {
                Some(Place::Field(name)) => {
                    fields.retain(|(known, _)| known != name);
                    fields.insert(0, (name.clone(), text));
                }
                Some(at) => {
                    let header = self.header_of(at, draft, credentials);
                    draft.set(at, &text, header)?;
                }
                None => {}
            }
        }
        let header = self.header_of(place, draft, credentials);
        // A signature in the body changes the body's text around what it covers, so its room is made first.
        if !place.is_in_head() {
            draft.set(place, "", header.clone())?;
        }
        let jws_header = jws_header(&fields);
        if rule.layout == Layout::JwsDetached {
            fields.push((crate::signature::RAW_HEADER.to_owned(), jws_header.clone()));
        }
        let value = draft.with_request(|request| -> Result<String, Refusal> {
            let view = View::new(*request, None);
            let scope = self.scope(&view, credentials, &fields);
            let (prefix, algorithm) = match &rule.algorithm {
                AlgorithmRule::One(algorithm) => (rule.prefix.as_str(), *algorithm),
                AlgorithmRule::ByPrefix(list) => {
                    let strongest = list.iter().max_by_key(|(prefix, _)| prefix.as_str()).ok_or_else(cannot)?;
                    (strongest.0.as_str(), strongest.1)
                }
                AlgorithmRule::ByPlace(place, list) => {
                    let name = place.read_all(&scope)?.into_iter().next().unwrap_or_default();
                    let known = list.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)).ok_or_else(cannot)?;
                    (rule.prefix.as_str(), known.1)
                }
            };
            let content = rule.contents(&scope, secret)?.into_iter().next().ok_or_else(cannot)?;
            let signature = if algorithm.is_public() {
                crate::public_key::sign(secret, algorithm, &content.concat())
            } else {
                algorithm.compute(&self.key.bytes(secret)?, &content)
            };
            let text = format!("{prefix}{}", rule.encoding.encode(&signature.ok_or_else(cannot)?));
            match rule.layout {
                Layout::Plain => Ok(text),
                Layout::JwsDetached => Ok(format!("{jws_header}..{text}")),
                Layout::Pairs => {
                    let name = rule.field.render_text(&scope)?;
                    let pair = |(name, value): &(String, String)| format!("{name}{}{value}", rule.assign);
                    let own = pair(&(name, text));
                    let separator = rule.separator.as_deref().unwrap_or(",");
                    Ok(fields.iter().map(pair).chain(std::iter::once(own)).collect::<Vec<_>>().join(separator))
                }
                Layout::Base64Json => {
                    let mut object: Map<String, Value> =
                        fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
                    object.insert(rule.field.render_text(&scope)?, Value::from(text));
                    Ok(Encoding::Base64.encode(Value::Object(object).to_string().as_bytes()))
                }
            }
        })?;
        draft.set(place, &value, header)
    }

    fn sign_jwt(
        &self,
        rule: &JwtRule,
        draft: &mut Signed,
        secret: &str,
        credentials: &Credentials,
        now_s: u64,
    ) -> Result<(), Refusal> {
        let cannot = || Refusal::new(Reason::CannotSign);
        let is_private = secret.trim_start().starts_with("-----BEGIN");
        let mut names = rule.algorithms.iter().filter_map(|name| Some((name, crate::jwt::algorithm(name)?)));
        let text = draft.with_request(|request| -> Result<String, Refusal> {
            let view = View::new(*request, None);
            let scope = self.scope(&view, credentials, &[]);
            let mut claims: Map<String, Value> = match rule.at {
                Place::Body => serde_json::from_slice(request.body).map_err(|_| cannot())?,
                _ => Map::new(),
            };
            claims.insert("iat".to_owned(), now_s.into());
            claims.insert("exp".to_owned(), now_s.saturating_add(TOKEN_SECONDS).into());
            if rule.required.iter().any(|name| name == "nbf") {
                claims.insert("nbf".to_owned(), now_s.into());
            }
            let issuer = rule.issuers.iter().find_map(|issuer| issuer.render_text(&scope).ok());
            let audience = rule.audience.as_ref().and_then(|audience| audience.render_text(&scope).ok());
            for (name, value) in [("iss", issuer), ("aud", audience)] {
                if let Some(value) = value {
                    claims.insert(name.to_owned(), value.into());
                }
            }
            for claim in &rule.claims {
                if let Ok(content) = claim.of.render(&scope, "") {
                    claims.insert(claim.name.clone(), claim.form.write(&content.concat()).into());
                }
            }
            if rule.required.iter().any(|name| name == "jti") {
                // As unlike any other as the token itself is; there is no randomness here.
                let id = crate::preset::ClaimForm::Sha256Hex.write(Value::Object(claims.clone()).to_string().as_bytes());
                claims.insert("jti".to_owned(), id.into());
            }
            // The first algorithm that this key can be used with.
            let signed = names.find_map(|(name, algorithm)| {
                let header = serde_json::json!({ "alg": name, "typ": "JWT" }).to_string();
                let claims = Value::Object(claims.clone()).to_string();
                let signed = format!(
                    "{}.{}",
                    Encoding::Base64url.encode(header.as_bytes()),
                    Encoding::Base64url.encode(claims.as_bytes())
                );
                let signature = match (is_private, algorithm.is_public()) {
                    (true, true) => crate::public_key::sign(secret, algorithm, signed.as_bytes()),
                    (false, false) => algorithm.compute(&self.key.bytes(secret).ok()?, &[signed.as_bytes().into()]),
                    _ => None,
                }?;
                Some(format!("{signed}.{}", Encoding::Base64url.encode(&signature)))
            });
            signed.ok_or_else(cannot)
        })?;
        let header = self.header_of(&rule.at, draft, credentials);
        draft.set(&rule.at, &format!("{}{text}", rule.prefix), header)
    }
}

fn jws_header(fields: &[(String, String)]) -> String {
    let object: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    Encoding::Base64url.encode(Value::Object(object).to_string().as_bytes())
}
