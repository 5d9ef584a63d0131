//! Which user of the machine a container's user is: the same one, unless the daemon maps users to others.

use bollard::models::SystemInfo;

use crate::options::Options;

/// How the daemon maps the users of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// To themselves.
    Same,
    /// Each to the one whose number is so much higher.
    Shifted(u32),
    /// To others, and it does not say to which.
    Unknown,
}

impl Users {
    /// What the daemon says of itself.
    pub(crate) fn of(info: &SystemInfo, options: &Options) -> Self {
        let is_mapped = info.security_options.iter().flatten().any(|option| option.contains("name=userns"));
        if !is_mapped || options.userns.as_deref() == Some("host") {
            return Self::Same;
        }
        // What it has is then in a directory that is named for whom it makes root, as `/var/lib/docker/100000.100000`.
        let dir = info.docker_root_dir.as_deref().and_then(|dir| dir.trim_end_matches('/').rsplit('/').next());
        let root = dir.and_then(|name| name.split_once('.')).and_then(|(user, _)| user.parse().ok());
        root.map_or(Self::Unknown, Self::Shifted)
    }

    /// Who a container's user is on the machine, if that is known.
    pub(crate) fn outside(self, inside: u32) -> Option<u32> {
        match self {
            Self::Same => Some(inside),
            Self::Shifted(by) => inside.checked_add(by),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_root_is_in_the_name_of_its_directory() {
        let info = |dir: &str| SystemInfo {
            security_options: Some(vec!["name=seccomp,profile=default".to_owned(), "name=userns".to_owned()]),
            docker_root_dir: Some(dir.to_owned()),
            ..SystemInfo::default()
        };
        let mut options = Options::new("/var/lib/x");
        let users = Users::of(&info("/var/lib/docker/231072.231073"), &options);
        assert_eq!(users, Users::Shifted(231_072));
        assert_eq!((users.outside(0), users.outside(1_000)), (Some(231_072), Some(232_072)));
        assert_eq!(Users::of(&info("/var/lib/docker"), &options).outside(1_000), None);
        assert_eq!(Users::of(&SystemInfo::default(), &options).outside(1_000), Some(1_000));
        options.userns = Some("host".to_owned());
        assert_eq!(Users::of(&info("/var/lib/docker/231072.231073"), &options), Users::Same);
    }
}
