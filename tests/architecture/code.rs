//! Rust text without what is not code, as far as the rules need it: no parser.

/// The text with the insides of comments, strings and character literals blanked, line by line as it
/// was, and without the unit tests at its end.
pub fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '"' => string_end(&chars, at + 1),
            'r' if is_raw_string(&chars, at) => raw_string_end(&chars, at + 1),
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
            code.extend(chars[at..end].iter().map(blank));
            at = end;
        }
    }
    code
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| at + length)
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn is_raw_string(chars: &[char], at: usize) -> bool {
    let part_of_a_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let rest = chars[at + 1..].iter().find(|c| **c != '#');
    !part_of_a_word && rest == Some(&'"') && matches!(chars[at + 1], '#' | '"')
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    let mut end = at + hashes + 1;
    while end < chars.len() {
        let closed = chars[end..].iter().skip(1).take(hashes).filter(|c| **c == '#').count();
        if chars[end] == '"' && closed == hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    end
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        let close = chars[at + 3..].iter().position(|c| *c == '\'')?;
        return Some(at + 3 + close + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// Functions with a body: name, first line and number of lines.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut functions = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace().skip_while(|word| *word != "fn").skip(1);
        let Some(word) = words.next() else { continue };
        let name: String = word.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let mut depth = 0i32;
        'body: for (length, line) in lines[first..].iter().enumerate() {
            for c in line.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => {
                        depth -= 1;
                        if depth == 0 {
                            functions.push((name.clone(), first + 1, length + 1));
                            break 'body;
                        }
                    }
                    // Declared, not defined.
                    ';' if depth == 0 => break 'body,
                    _ => {}
                }
            }
        }
    }
    functions
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let text =
        "let a = \"un{safe\"; // unsafe\nlet b = r#\"\" }\"#; let c = '{'; let d: &'a str;\n";
    let code = code(&format!("{text}let e = '\\'';\n#[cfg(test)]\nmod tests {{ unsafe }}"));
    assert!(!code.contains("unsafe") && !code.contains(['{', '}']), "{code}");
    assert!(code.contains("let c =") && code.contains("&'a str") && code.contains("let e"));
    assert_eq!(code.lines().count(), 3);
}

#[test]
fn functions_are_measured() {
    let text =
        "trait T {\n    fn a();\n    fn b() {\n        if x {\n        }\n    }\n}\nfn c(\n) {}\n";
    let found = functions(&code(text));
    assert_eq!(found, [("b".to_string(), 3, 4), ("c".to_string(), 8, 2)]);
}
