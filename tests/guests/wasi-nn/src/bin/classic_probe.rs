//! Does what standard input tells it, a call a line, and writes a line for each: the error number
//! of wasi-nn's classic ABI, and what the call gave. The calls are the ABI's own, so that a test can
//! hand over addresses and numbers which no binding would.
#![allow(
    unsafe_code,
    reason = "calls of the host, which checks what it is given"
)]

use std::collections::BTreeMap;
use std::io::{Read, Result, Write, stdin, stdout};
use std::time::Duration;

use firebox_wasi_nn_guests::{bytes, dimensions, hex, number, wrong};

mod host {
    #[cfg(target_family = "wasm")]
    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        pub fn load(builders: u32, count: u32, encoding: u32, target: u32, result: u32) -> u32;
        pub fn load_by_name(name: u32, length: u32, result: u32) -> u32;
        pub fn init_execution_context(graph: u32, result: u32) -> u32;
        pub fn set_input(context: u32, index: u32, tensor: u32) -> u32;
        pub fn compute(context: u32) -> u32;
        pub fn get_output(context: u32, index: u32, buffer: u32, size: u32, result: u32) -> u32;
    }

    /// There is no host elsewhere: every call fails.
    #[cfg(not(target_family = "wasm"))]
    mod nowhere {
        pub unsafe fn load(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32 {
            5
        }
        pub unsafe fn load_by_name(_: u32, _: u32, _: u32) -> u32 {
            5
        }
        pub unsafe fn init_execution_context(_: u32, _: u32) -> u32 {
            5
        }
        pub unsafe fn set_input(_: u32, _: u32, _: u32) -> u32 {
            5
        }
        pub unsafe fn compute(_: u32) -> u32 {
            5
        }
        pub unsafe fn get_output(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32 {
            5
        }
    }
    #[cfg(not(target_family = "wasm"))]
    pub use nowhere::*;
}

fn main() -> Result<()> {
    let mut script = String::new();
    stdin().read_to_string(&mut script)?;
    for line in script.lines() {
        let said = run(line)?;
        writeln!(stdout(), "{said}")?;
    }
    Ok(())
}

fn run(line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    Ok(match words.as_slice() {
        ["load", file, encoding, target] => {
            let model = std::fs::read(file)?;
            load(&[&model], encoding, target)?
        }
        ["load_parts", count, encoding, target] => {
            let parts = vec![&b"part"[..]; number(count)? as usize];
            load(&parts, encoding, target)?
        }
        ["load_at", builders, count, encoding, target, result] => {
            let numbers = [builders, count, encoding, target, result].map(|word| number(word));
            let [builders, count, encoding, target, result] = numbers;
            let (builders, count, result) = (builders?, count?, result?);
            let errno = unsafe { host::load(builders, count, encoding?, target?, result) };
            errno.to_string()
        }
        ["load_by_name", name] => result(|result| unsafe {
            host::load_by_name(address(name.as_bytes()), name.len() as u32, result)
        }),
        ["load_by_name_at", name, length, result] => {
            let (name, length, result) = (number(name)?, number(length)?, number(result)?);
            let errno = unsafe { host::load_by_name(name, length, result) };
            errno.to_string()
        }
        ["init", graph] => {
            let graph = number(graph)?;
            result(|result| unsafe { host::init_execution_context(graph, result) })
        }
        ["set", context, index, ty, sizes, data] => {
            let (sizes, data) = (dimensions(sizes)?, bytes(data)?);
            let (sizes, rank) = (address(&sizes), sizes.len() as u32);
            let record = [sizes, rank, number(ty)?, address(&data), data.len() as u32];
            set(context, index, address(&record))?
        }
        ["set_record", context, index, record @ ..] => {
            let record = record.iter().map(|word| number(word));
            let record: Vec<u32> = record.collect::<Result<_>>()?;
            set(context, index, address(&record))?
        }
        ["set_at", context, index, tensor] => set(context, index, number(tensor)?)?,
        ["compute", context] => {
            let context = number(context)?;
            unsafe { host::compute(context) }.to_string()
        }
        ["get", context, index, size] => {
            let mut buffer = vec![0; number(size)? as usize];
            get(context, index, &mut buffer)?
        }
        ["get_at", context, index, buffer, size, result] => {
            let (context, index, size) = (number(context)?, number(index)?, number(size)?);
            let (buffer, result) = (number(buffer)?, number(result)?);
            let errno = unsafe { host::get_output(context, index, buffer, size, result) };
            errno.to_string()
        }
        ["repeat", times, rest @ ..] => {
            let line = rest.join(" ");
            let mut errnos: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..number(times)? {
                let said = run(&line)?;
                let errno = said.split(' ').next().unwrap_or_default();
                *errnos.entry(errno.to_owned()).or_default() += 1;
            }
            format!("{errnos:?}")
        }
        rest => as_program(rest)?,
    })
}

/// What has to do with the program, not with models.
fn as_program(words: &[&str]) -> Result<String> {
    Ok(match words {
        ["args"] => format!("{:?}", std::env::args().collect::<Vec<_>>()),
        ["env"] => format!("{:?}", std::env::vars().collect::<BTreeMap<_, _>>()),
        ["cat", file] => std::fs::read_to_string(file)?,
        ["write", file] => match std::fs::write(file, "written") {
            Ok(()) => "written".into(),
            Err(error) => format!("{:?}", error.kind()),
        },
        ["stderr", words @ ..] => {
            eprintln!("{}", words.join(" "));
            String::new()
        }
        ["exit", code] => std::process::exit(number(code)? as i32),
        ["abort"] => std::process::abort(),
        ["panic"] => return Err(wrong("on purpose")),
        ["spin"] => loop {
            std::hint::black_box(0);
        },
        ["sleep", milliseconds] => {
            std::thread::sleep(Duration::from_millis(number(milliseconds)?.into()));
            "slept".into()
        }
        ["allocate", mebibytes] => {
            let bytes = vec![1u8; (number(mebibytes)? as usize) << 20];
            format!("{}", std::hint::black_box(bytes).len())
        }
        ["flood", mebibytes] => {
            let block = vec![b'.'; 1 << 20];
            for _ in 0..number(mebibytes)? {
                stdout().write_all(&block)?;
            }
            String::new()
        }
        other => return Err(wrong(format!("there is no call {other:?}"))),
    })
}

fn load(parts: &[&[u8]], encoding: &str, target: &str) -> Result<String> {
    let lists = parts.iter().map(|part| [address(part), part.len() as u32]);
    let builders: Vec<[u32; 2]> = lists.collect();
    let (encoding, target) = (number(encoding)?, number(target)?);
    let (list, count) = (address(&builders), builders.len() as u32);
    Ok(result(|result| unsafe {
        host::load(list, count, encoding, target, result)
    }))
}

fn set(context: &str, index: &str, tensor: u32) -> Result<String> {
    let (context, index) = (number(context)?, number(index)?);
    let errno = unsafe { host::set_input(context, index, tensor) };
    Ok(errno.to_string())
}

fn get(context: &str, index: &str, buffer: &mut [u8]) -> Result<String> {
    let (context, index) = (number(context)?, number(index)?);
    let (start, size) = (address_mut(buffer), buffer.len() as u32);
    let mut length = 0u32;
    let result = address_mut(std::slice::from_mut(&mut length));
    let errno = unsafe { host::get_output(context, index, start, size, result) };
    if errno != 0 {
        return Ok(errno.to_string());
    }
    let output = buffer.get(..length as usize);
    let output = output.ok_or_else(|| wrong(format!("{length} bytes in a buffer of {size}")))?;
    Ok(format!("0 {length} {}", hex(output)))
}

/// Makes a call that gives a number.
fn result(call: impl FnOnce(u32) -> u32) -> String {
    let mut given = u32::MAX;
    match call(address_mut(std::slice::from_mut(&mut given))) {
        0 => format!("0 {given}"),
        errno => errno.to_string(),
    }
}

/// Where something is in memory, which has 32 bits.
fn address<T>(items: &[T]) -> u32 {
    items.as_ptr().expose_provenance() as u32
}

/// The same of what the host shall write to.
fn address_mut<T>(items: &mut [T]) -> u32 {
    items.as_mut_ptr().expose_provenance() as u32
}
