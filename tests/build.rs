//! A new migration file is a reason to rebuild.
fn main() {
    println!("cargo:rerun-if-changed=../migrations");
    println!("cargo:rerun-if-changed=../engine/migrations");
}
