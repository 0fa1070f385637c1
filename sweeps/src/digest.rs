//! What makes two points the same: a BLAKE3 digest over everything that a result depends on.
//!
//! Every part is preceded by its length, so that no two different lists of parts run together to the same bytes.

use engine::{NodeId, Trigger, Workload};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A BLAKE3 digest, 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// All that the result of a point depends on.
#[derive(Debug, Clone, Copy)]
pub struct PointIdentity<'a> {
    /// The scenario after overrides, in canonical text: equal scenarios, equal text.
    pub scenario: &'a str,
    /// The requests ([`workload_digest`]), or the text of a generator's parameters hashed.
    pub workload: Digest,
    /// Name and parameters of the timing model, with the digest of its tables if it has any.
    pub timing: &'a str,
    /// Version of the program.
    pub version: &'a str,
}

impl PointIdentity<'_> {
    /// The key of the point in a journal.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let PointIdentity {
            scenario,
            workload,
            timing,
            version,
        } = self;
        digest_parts(
            "dynosim point",
            &[
                scenario.as_bytes(),
                &workload.0,
                timing.as_bytes(),
                version.as_bytes(),
            ],
        )
    }
}

/// The digest of a list of byte strings within a domain.
#[must_use]
pub fn digest_parts(domain: &str, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in [domain.as_bytes()].iter().chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of a workload: arrivals, lengths, priorities, sessions, dependencies, what requests say about themselves and
/// what contents have in common.
/// Renaming all tokens changes nothing, as it changes no simulation.
#[must_use]
pub fn workload_digest(workload: &Workload) -> Digest {
    let mut requests = Vec::with_capacity(workload.requests.len() * 36);
    for request in &workload.requests {
        requests.extend_from_slice(&request.arrival.0.to_le_bytes());
        let numbers = [
            request.input_tokens,
            request.output_tokens,
            request.leaf.0,
            request.session,
        ];
        numbers
            .iter()
            .for_each(|number| requests.extend_from_slice(&number.to_le_bytes()));
        requests.extend_from_slice(&request.priority.to_le_bytes());
        requests.extend_from_slice(&u32::from(request.dependency_count).to_le_bytes());
    }
    let mut dependencies = Vec::new();
    for request in &workload.requests {
        for dependency in workload.dependencies_of(request) {
            dependencies.extend_from_slice(&dependency.on.0.to_le_bytes());
            dependencies.push(match dependency.trigger {
                Trigger::Dispatch => 0,
                Trigger::Completion => 1,
            });
            dependencies.extend_from_slice(&dependency.delay.0.to_le_bytes());
        }
    }
    let mut tree = Vec::with_capacity(workload.tree.len() * 8);
    for node in (0..workload.tree.len() as u32).map(NodeId) {
        tree.extend_from_slice(&workload.tree.parent(node).0.to_le_bytes());
        tree.extend_from_slice(&workload.tree.end(node).to_le_bytes());
    }
    let parts = [&requests, &dependencies, &tree].map(Vec::as_slice);
    if workload.annotations.is_empty() {
        return digest_parts("dynosim workload", &parts);
    }
    let said = (0..workload.requests.len()).map(|index| match workload.annotations.of(index) {
        // Said later, and only by those that ask for it.
        Some(annotations) => {
            format!("{annotations:?}\n").replace(", speculative_prefill: false", "")
        }
        None => "\n".to_owned(),
    });
    let said: String = said.collect();
    digest_parts(
        "dynosim workload",
        &[parts[0], parts[1], parts[2], said.as_bytes()],
    )
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = String;
    fn from_str(text: &str) -> Result<Digest, String> {
        let error =
            || format!("found `{text}`, expected a digest of 64 lower-case hexadecimal digits");
        let is_hex = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 64 || !is_hex {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| error())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        Ok(Digest(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Dependency, NewRequest, RequestId, Run, Span, Time, WorkloadBuilder};

    #[test]
    fn every_part_counts_and_parts_do_not_run_together() {
        let workload = digest_parts("w", &[b"1"]);
        let identity = PointIdentity {
            scenario: "s",
            workload,
            timing: "t",
            version: "1",
        };
        let variants = [
            identity,
            PointIdentity {
                scenario: "S",
                ..identity
            },
            PointIdentity {
                workload: digest_parts("w", &[b"2"]),
                ..identity
            },
            PointIdentity {
                timing: "T",
                ..identity
            },
            PointIdentity {
                version: "2",
                ..identity
            },
            PointIdentity {
                timing: "t1",
                version: "",
                ..identity
            },
        ];
        let mut digests: Vec<Digest> = variants.iter().map(PointIdentity::digest).collect();
        assert_eq!(digests[0], identity.digest());
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), variants.len());
    }

    #[test]
    fn text_gives_back_the_digest() {
        let digest = digest_parts("x", &[]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in [
            "",
            "12",
            &digest.to_string().to_uppercase(),
            &"+1".repeat(32),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    fn workload(arrivals: [u64; 2], shared: u32, delay: Option<u64>, first_token: u64) -> Workload {
        let mut builder = WorkloadBuilder::new();
        for (index, arrival) in arrivals.into_iter().enumerate() {
            let own = first_token + 1000 * (index as u64 + 1);
            let prompt = [
                Run {
                    first: first_token,
                    len: shared,
                },
                Run {
                    first: own,
                    len: 100 - shared,
                },
            ];
            let wait = delay.map(|ns| Dependency {
                on: RequestId(0),
                trigger: Trigger::Completion,
                delay: Span::from_ns(ns),
            });
            builder.push(NewRequest {
                arrival: Time::from_ns(arrival),
                prompt: &prompt,
                output_tokens: 5,
                priority: 0,
                session: 0,
                dependencies: if index == 1 { wait.as_slice() } else { &[] },
            });
        }
        builder.finish()
    }

    #[test]
    fn a_workload_is_known_by_its_arrivals_contents_and_dependencies() {
        let base = workload_digest(&workload([0, 5], 50, None, 0));
        assert_eq!(
            base,
            workload_digest(&workload([0, 5], 50, None, 7_000_000)),
            "renamed tokens"
        );
        let others = [
            workload([0, 6], 50, None, 0),
            workload([0, 5], 51, None, 0),
            workload([0, 5], 50, Some(1), 0),
            workload([0, 5], 50, Some(2), 0),
        ];
        let mut digests: Vec<Digest> = others.iter().map(workload_digest).chain([base]).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 5);
    }
}
