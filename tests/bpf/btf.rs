//! A reader for the type information (BTF) of a BPF object: just enough to ask for the size of a type,
//! the fields of a structure and the maps. Pure; std only. Panics on anything malformed, as a test may.

use std::collections::BTreeMap;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

#[derive(Debug)]
struct Type {
    name: String,
    kind: u32,
    /// Size in bytes or the type referred to, by kind.
    value: u32,
    /// The words behind the common header.
    rest: Vec<u32>,
}

/// A member of a structure; offset and size in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

/// The definition of a map, as libbpf and aya read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    /// `enum bpf_map_type`.
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    /// `LIBBPF_PIN_BY_NAME`.
    pub pinned: bool,
}

pub struct Btf {
    /// By id; 0 is void.
    types: Vec<Type>,
    strings: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn long(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize
}

/// The bytes of a section of a little-endian ELF64 file.
fn section<'a>(elf: &'a [u8], wanted: &str) -> &'a [u8] {
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01", "a little-endian ELF64 file");
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let (table, entry_len, count, names) = (long(elf, 40), half(58), half(60), half(62));
    let header = |index: usize| &elf[table + index * entry_len..];
    let content = |index: usize| &elf[long(header(index), 24)..][..long(header(index), 32)];
    let found = (0..count).find(|index| {
        let name = &content(names)[word(header(*index), 0) as usize..];
        name.starts_with(wanted.as_bytes()) && name[wanted.len()] == 0
    });
    content(found.expect("the section"))
}

impl Btf {
    pub fn of_object(elf: &[u8]) -> Self {
        let btf = section(elf, ".BTF");
        assert_eq!(btf[..2], 0xeb9f_u16.to_le_bytes(), "BTF magic");
        let body = &btf[word(btf, 4) as usize..];
        let part = |at: usize| &body[word(btf, at) as usize..][..word(btf, at + 4) as usize];
        let (types, strings) = (part(8), part(16).to_vec());
        let mut parsed = Self { types: Vec::new(), strings };
        parsed.add(String::new(), 0, 0, Vec::new());
        let mut at = 0;
        while at < types.len() {
            let info = word(types, at + 4);
            let (kind, count) = (info >> 24 & 31, (info & 0xffff) as usize);
            let rest_len = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 1,
                KIND_ARRAY => 3,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 3 * count,
                KIND_ENUM | KIND_FUNC_PROTO => 2 * count,
                _ => 0,
            };
            let rest = (0..rest_len).map(|index| word(types, at + 12 + index * 4)).collect();
            let name = parsed.string(word(types, at));
            parsed.add(name, kind, word(types, at + 8), rest);
            at += 12 + rest_len * 4;
        }
        parsed
    }

    fn add(&mut self, name: String, kind: u32, value: u32, rest: Vec<u32>) {
        self.types.push(Type { name, kind, value, rest });
    }

    fn string(&self, at: u32) -> String {
        let bytes = &self.strings[at as usize..];
        let len = bytes.iter().position(|byte| *byte == 0).expect("a terminated string");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    fn at(&self, id: u32) -> &Type {
        &self.types[id as usize]
    }

    fn size(&self, id: u32) -> u32 {
        let found = self.at(id);
        match found.kind {
            KIND_PTR => 8,
            KIND_ARRAY => found.rest[2] * self.size(found.rest[0]),
            KIND_TYPEDEF | KIND_VOLATILE..=KIND_RESTRICT => self.size(found.value),
            _ => found.value,
        }
    }

    /// Name, type and offset in bits of each member.
    fn members(&self, of: &Type) -> Vec<(String, u32, u32)> {
        let members = of.rest.chunks(3);
        members.map(|member| (self.string(member[0]), member[1], member[2])).collect()
    }

    /// Size and members of the structure of that name, `None` when there is none.
    pub fn structure(&self, name: &str) -> Option<(usize, Vec<Member>)> {
        let found = self.types.iter().find(|t| t.kind == KIND_STRUCT && t.name == name)?;
        let members = self.members(found).into_iter().map(|(name, id, bits)| {
            assert_eq!(bits % 8, 0, "{name} is a bit field");
            Member { name, offset: (bits / 8) as usize, size: self.size(id) as usize }
        });
        Some((found.value as usize, members.collect()))
    }

    /// The maps, by name.
    pub fn maps(&self) -> BTreeMap<String, Map> {
        let named = |t: &&Type| t.kind == KIND_DATASEC && t.name == ".maps";
        let variables = &self.types.iter().find(named).expect("section .maps").rest;
        variables.chunks(3).map(|variable| self.map(self.at(variable[0]))).collect()
    }

    fn map(&self, variable: &Type) -> (String, Map) {
        let members = self.members(self.at(variable.value));
        // `__type` declares a pointer to the type, `__uint` a pointer to an array of so many.
        let target = |wanted: &str| {
            let member = members.iter().find(|(name, ..)| name == wanted);
            member.map(|(_, pointer, _)| self.at(*pointer).value)
        };
        let number = |wanted: &str| target(wanted).map_or(0, |array| self.at(array).rest[2]);
        let size = |wanted: &str| target(wanted).map_or(0, |id| self.size(id));
        let map = Map {
            kind: number("type"),
            key_size: size("key"),
            value_size: size("value"),
            max_entries: number("max_entries"),
            flags: number("map_flags"),
            pinned: number("pinning") == 1,
        };
        (variable.name.clone(), map)
    }
}
