//! What containers are run by, and whether they then share the machine's kernel.

use bollard::models::SystemInfo;
use cmdexec_core::executor::Error;

/// The programs that make processes of the machine, and no machine of its own. Docker names the first by its shim, too.
const SHARING: [&str; 5] = ["runc", "io.containerd.runc.v2", "crun", "youki", "nvidia-container-runtime"];

/// Whether containers share the kernel of the daemon's machine, so that descriptors can be handed to them. `asked` is the runtime that
/// was asked for by name, else it is the daemon's default.
///
/// # Errors
/// The daemon has none of this name.
pub(crate) fn shares_kernel(info: &SystemInfo, asked: Option<&str>) -> Result<bool, Error> {
    if let (Some(asked), Some(known)) = (asked, &info.runtimes)
        && !known.contains_key(asked)
    {
        let mut names: Vec<_> = known.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(Error::new(format!("the container daemon has no runtime {asked:?}; it has {}", names.join(", "))));
    }
    let Some(name) = asked.or(info.default_runtime.as_deref()) else { return Ok(true) };
    // The name is whatever it was given on that machine; the program says what it is.
    let program = info.runtimes.as_ref().and_then(|known| known.get(name)?.path.as_deref());
    let program = program.filter(|path| !path.is_empty()).unwrap_or(name);
    Ok(SHARING.contains(&program.rsplit('/').next().unwrap_or(program)))
}

#[cfg(test)]
mod tests {
    use bollard::models::Runtime;

    use super::*;

    #[test]
    fn the_program_counts_and_not_its_name() {
        let runtime = |path: Option<&str>| Runtime { path: path.map(str::to_owned), ..Runtime::default() };
        let known = [
            ("runc", runtime(Some("runc"))),
            ("ours", runtime(Some("/usr/sbin/runc"))),
            ("fast", runtime(Some("/opt/runsc"))),
            ("io.containerd.kata.v2", runtime(None)),
        ];
        let mut info = SystemInfo {
            runtimes: Some(known.into_iter().map(|(name, runtime)| (name.to_owned(), runtime)).collect()),
            default_runtime: Some("runc".to_owned()),
            ..SystemInfo::default()
        };
        let shares = |info: &SystemInfo, asked: &str| shares_kernel(info, Some(asked)).unwrap();
        assert!(shares(&info, "runc") && shares(&info, "ours"));
        assert!(!shares(&info, "fast") && !shares(&info, "io.containerd.kata.v2"));
        let said = shares_kernel(&info, Some("nowhere")).unwrap_err().to_string();
        assert!(said.contains("\"nowhere\"; it has fast, io.containerd.kata.v2, ours, runc"), "{said}");
        assert!(shares_kernel(&info, None).unwrap());
        info.default_runtime = Some("fast".to_owned());
        assert!(!shares_kernel(&info, None).unwrap());
        assert!(shares_kernel(&SystemInfo::default(), None).unwrap());
    }
}
