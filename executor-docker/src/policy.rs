//! What a worker lets jobs ask for. Checked before anything is fetched; a refusal says which rule.

use cmdexec_core::job::{JobSpec, Network, Resources};
use globset::GlobBuilder;

use crate::reference::{Reference, Version, whole_name};

/// What a worker lets jobs in containers ask for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Patterns of images that may be used, such as `debian`, `ghcr.io/our/*` or `debian:12*`; any if there is none. A pattern is completed
    /// as an image's name is: one that names no registry means Docker's own. One without a tag or digest means any; `*` stays between
    /// slashes and `**` crosses them.
    pub images: Vec<String>,
    /// Registries that images may come from, such as `docker.io`; any if there is none.
    pub registries: Vec<String>,
    /// The most that a job may ask for of each, and that one gets which does not say; any amount where nothing is said.
    pub most: Resources,
    /// Whether jobs may have a network. False by default.
    pub network: bool,
    /// Whether jobs run as the user that their image names, which is root for most, rather than as one that is nobody's. False by
    /// default. Only where the worker is root: it could not remove what jobs leave otherwise.
    pub image_user: bool,
}

impl Policy {
    pub(crate) fn problems(&self) -> Vec<String> {
        let bad = |pattern: &String| compile(pattern).err().map(|error| format!("images: {pattern:?}: {error}"));
        self.images.iter().filter_map(bad).collect()
    }

    /// Which rule a job breaks, if one.
    pub(crate) fn check(&self, spec: &JobSpec, image: &Reference, network: Network) -> Result<(), String> {
        let broken = |rule: &str| Err(format!("this worker's policy does not allow it: {rule}"));
        if !self.registries.is_empty() && !self.registries.contains(&image.registry) {
            return broken(&format!("images from {} (registries: {})", image.registry, self.registries.join(", ")));
        }
        if !self.images.is_empty() && !self.images.iter().any(|pattern| matches(pattern, image)) {
            return broken(&format!("the image {image} (images: {})", self.images.join(", ")));
        }
        if network == Network::Bridge && !self.network {
            return broken("a network");
        }
        let (asked, most) = (spec.resources, self.most);
        let over = |asked: Option<u64>, most: Option<u64>| asked.zip(most).is_some_and(|(asked, most)| asked > most);
        if over(asked.cpu_millis.map(u64::from), most.cpu_millis.map(u64::from)) {
            return broken(&format!("more than {} processors", f64::from(most.cpu_millis.unwrap_or(0)) / 1_000.0));
        }
        if over(asked.memory_mb, most.memory_mb) {
            return broken(&format!("more than {} MiB of memory", most.memory_mb.unwrap_or(0)));
        }
        if over(asked.pids.map(u64::from), most.pids.map(u64::from)) {
            return broken(&format!("more than {} processes", most.pids.unwrap_or(0)));
        }
        Ok(())
    }
}

fn compile(pattern: &str) -> Result<globset::GlobMatcher, String> {
    let (registry, repository) =
        if pattern.starts_with('*') { (String::new(), String::new()) } else { whole_name(pattern) };
    let whole = if registry.is_empty() { pattern.to_owned() } else { format!("{registry}/{repository}") };
    let glob = GlobBuilder::new(&whole).literal_separator(true).build().map_err(|error| error.to_string())?;
    Ok(glob.compile_matcher())
}

fn matches(pattern: &str, image: &Reference) -> bool {
    let Ok(matcher) = compile(pattern) else { return false };
    let versioned = match &image.version {
        Version::Tag(tag) => format!("{}:{tag}", image.name()),
        Version::Digest(digest) => format!("{}@{digest}", image.name()),
    };
    pattern == "*" || matcher.is_match(image.name()) || matcher.is_match(versioned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(policy: &Policy, spec: &JobSpec, image: &str) -> Result<(), String> {
        policy.check(spec, &Reference::parse(image).unwrap(), spec.network.unwrap_or(Network::None))
    }

    #[test]
    fn patterns_are_completed_as_names_are() {
        for (pattern, fits, other) in [
            ("debian", "debian:12", "debian.evil.example/x"),
            ("debian:12*", "debian:12-slim", "debian:11"),
            ("ghcr.io/our/*", "ghcr.io/our/tool:1", "ghcr.io/our/deep/tool"),
            ("ghcr.io/our/**", "ghcr.io/our/deep/tool", "ghcr.io/ours/tool"),
            ("localhost:5000/*", "localhost:5000/x", "localhost:5001/x"),
        ] {
            let policy = Policy { images: vec![pattern.to_owned()], ..Policy::default() };
            checked(&policy, &JobSpec::shell("x"), fits).unwrap();
            let said = checked(&policy, &JobSpec::shell("x"), other).unwrap_err();
            assert!(said.contains(pattern) && said.contains("images:"), "{said}");
        }
        let any = Policy { images: vec!["*".to_owned()], ..Policy::default() };
        checked(&any, &JobSpec::shell("x"), "ghcr.io/a/b/c").unwrap();
    }

    #[test]
    fn a_refusal_says_which_rule() {
        let most = Resources { cpu_millis: Some(1_500), memory_mb: Some(64), pids: Some(10), ..Resources::default() };
        let policy = Policy { registries: vec!["docker.io".to_owned()], most, ..Policy::default() };
        let said = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = JobSpec::shell("x");
            change(&mut spec);
            checked(&policy, &spec, "debian").unwrap_err()
        };
        assert!(said(&|spec| spec.resources.cpu_millis = Some(1_501)).contains("1.5 processors"));
        assert!(said(&|spec| spec.resources.memory_mb = Some(65)).contains("64 MiB"));
        assert!(said(&|spec| spec.resources.pids = Some(11)).contains("10 processes"));
        assert!(said(&|spec| spec.network = Some(Network::Bridge)).contains("a network"));
        assert!(checked(&policy, &JobSpec::shell("x"), "ghcr.io/x").unwrap_err().contains("registries: docker.io"));
        checked(&policy, &JobSpec::shell("x"), "debian").unwrap();
    }
}
