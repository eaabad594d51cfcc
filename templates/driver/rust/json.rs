//! A reader of the JSON that the gateway hands over: bounded depth, no panics, no crates.
#![allow(dead_code)] // not every driver asks for every kind of value

const DEPTH_MAX: u32 = 32;

pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Option<Json> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value(DEPTH_MAX)?;
        reader.blank();
        (reader.at == reader.text.len()).then_some(value)
    }

    /// The value under a name; None where there is none, or this is no object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    pub fn flag(&self) -> Option<bool> {
        if let Json::Bool(flag) = self { Some(*flag) } else { None }
    }

    pub fn number(&self) -> Option<f64> {
        if let Json::Number(number) = self { Some(*number) } else { None }
    }

    pub fn list(&self) -> Option<&[Json]> {
        if let Json::List(values) = self { Some(values) } else { None }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn takes(&mut self, word: &str) -> bool {
        self.blank();
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        let deeper = depth.checked_sub(1)?;
        if self.takes("{") {
            return self.members(deeper).map(Json::Object);
        }
        if self.takes("[") {
            return self.values(deeper).map(Json::List);
        }
        if self.takes("\"") {
            return self.string().map(Json::Text);
        }
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.takes(word) {
                return Some(value);
            }
        }
        let from = self.at;
        while self.text.get(self.at).is_some_and(|byte| b"+-.0123456789eE".contains(byte)) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[from..self.at]).ok()?.parse().ok().map(Json::Number)
    }

    fn values(&mut self, depth: u32) -> Option<Vec<Json>> {
        let mut found = Vec::new();
        if self.takes("]") {
            return Some(found);
        }
        loop {
            found.push(self.value(depth)?);
            if self.takes("]") {
                return Some(found);
            }
            self.takes(",").then_some(())?;
        }
    }

    fn members(&mut self, depth: u32) -> Option<Vec<(String, Json)>> {
        let mut found = Vec::new();
        if self.takes("}") {
            return Some(found);
        }
        loop {
            self.takes("\"").then_some(())?;
            let key = self.string()?;
            self.takes(":").then_some(())?;
            found.push((key, self.value(depth)?));
            if self.takes("}") {
                return Some(found);
            }
            self.takes(",").then_some(())?;
        }
    }

    /// The rest of a text whose opening quote was taken.
    fn string(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(bytes).ok(),
                b'\\' => {
                    let character = self.escape()?;
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let first = self.unit()?;
                let mut units = vec![first];
                if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    units.push(self.unit()?);
                }
                char::decode_utf16(units).next()?.ok()?
            }
            other => other as char,
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}
