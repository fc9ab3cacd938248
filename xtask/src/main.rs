//! Chores of the repository that are not part of the product. Each verb is a module; this file only
//! chooses among them.

mod codegen;
mod tidy;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["codegen"] => codegen::run(codegen::Mode::Write),
        ["codegen", "--check"] => codegen::run(codegen::Mode::Check),
        ["tidy"] => tidy::run(),
        _ => anyhow::bail!("usage: cargo xtask codegen [--check] | tidy"),
    }
}
