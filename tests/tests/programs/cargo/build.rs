//! A build script, which cargo compiles and runs before the crate.

fn main() {
    println!("cargo:rustc-env=BUILT_BY=script");
}
