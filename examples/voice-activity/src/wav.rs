//! A WAV file as one channel of samples.

use std::io::Cursor;

use hound::{SampleFormat, WavReader};

/// The longest recording, in seconds.
pub const LONGEST: u32 = 600;

/// One channel of sound.
#[derive(Debug, PartialEq)]
pub struct Recording {
    /// Samples a second.
    pub rate: u32,
    /// Samples, -1 to 1.
    pub samples: Vec<f32>,
}

/// Reads PCM of 8, 16, 24 or 32 bits, or floats of 32, at 8 to 192 kHz; several channels become
/// their mean.
///
/// # Errors
/// What was expected and what was found, for the caller.
pub fn read(file: &[u8]) -> Result<Recording, String> {
    let mut reader = WavReader::new(Cursor::new(file))
        .map_err(|why| format!("expected a WAV file of PCM or float samples, found: {why}"))?;
    let spec = reader.spec();
    if !(8_000..=192_000).contains(&spec.sample_rate) {
        let rate = spec.sample_rate;
        return Err(format!(
            "expected 8000 to 192000 samples a second, found {rate}"
        ));
    }
    let seconds = reader.duration() / spec.sample_rate;
    if seconds > LONGEST {
        return Err(format!(
            "expected at most {LONGEST} s of sound, found {seconds} s"
        ));
    }
    let samples: &mut dyn Iterator<Item = hound::Result<f32>> = match spec.sample_format {
        SampleFormat::Float => &mut reader.samples::<f32>(),
        SampleFormat::Int => {
            let full_scale = f32::powi(2.0, i32::from(spec.bits_per_sample) - 1);
            &mut reader
                .samples::<i32>()
                .map(move |value| value.map(|v| v as f32 / full_scale))
        }
    };
    let samples = mean_of_channels(samples, spec.channels)
        .map_err(|why| format!("the WAV file's samples can't be read: {why}"))?;
    if samples.iter().any(|sample| !sample.is_finite()) {
        return Err("expected finite samples, found infinity or NaN".into());
    }
    Ok(Recording {
        rate: spec.sample_rate,
        samples,
    })
}

/// One sample for each `channels` of `samples`.
fn mean_of_channels(
    samples: &mut dyn Iterator<Item = hound::Result<f32>>,
    channels: u16,
) -> hound::Result<Vec<f32>> {
    let mut means = Vec::new();
    let (mut sum, mut summed) = (0.0, 0);
    for sample in samples {
        sum += sample?;
        summed += 1;
        if summed == channels {
            means.push(sum / f32::from(channels));
            (sum, summed) = (0.0, 0);
        }
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hound::{WavSpec, WavWriter};

    fn file(channels: u16, sample_rate: u32, samples: &[i16]) -> Vec<u8> {
        let spec = WavSpec {
            channels,
            sample_rate,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec).unwrap();
        samples
            .iter()
            .for_each(|sample| writer.write_sample(*sample).unwrap());
        writer.finalize().unwrap();
        file.into_inner()
    }

    #[test]
    fn samples_are_scaled_to_one() {
        let recording = read(&file(1, 16_000, &[0, 16_384, -32_768])).unwrap();
        assert_eq!(
            recording,
            Recording {
                rate: 16_000,
                samples: vec![0.0, 0.5, -1.0]
            }
        );
    }

    #[test]
    fn two_channels_become_their_mean() {
        let recording = read(&file(2, 8_000, &[16_384, 0, -16_384, -16_384])).unwrap();
        assert_eq!(recording.samples, [0.25, -0.5]);
    }

    #[test]
    fn floats_are_taken_as_they_are_if_finite() {
        let spec = WavSpec {
            channels: 1,
            sample_rate: 44_100,
            bits_per_sample: 32,
            sample_format: SampleFormat::Float,
        };
        let file = |value: f32| {
            let mut file = Cursor::new(Vec::new());
            let mut writer = WavWriter::new(&mut file, spec).unwrap();
            writer.write_sample(value).unwrap();
            writer.finalize().unwrap();
            file.into_inner()
        };
        assert_eq!(read(&file(-0.75)).unwrap().samples, [-0.75]);
        assert!(read(&file(f32::NAN)).unwrap_err().contains("finite"));
    }

    #[test]
    fn other_files_and_rates_are_refused_with_what_was_found() {
        assert!(
            read(b"ID3\x04 an MP3")
                .unwrap_err()
                .starts_with("expected a WAV file")
        );
        let refused = read(&file(1, 4_000, &[0])).unwrap_err();
        assert_eq!(
            refused,
            "expected 8000 to 192000 samples a second, found 4000"
        );
        let refused = read(&file(1, 8_000, &vec![0; 8_000 * 602])).unwrap_err();
        assert_eq!(refused, "expected at most 600 s of sound, found 602 s");
    }

    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic() {
        let whole = file(2, 16_000, &[1, -1, 300, -300]);
        for length in 0..whole.len() {
            let _ = read(&whole[..length]);
        }
        for at in 0..44 {
            for value in [0, 1, 3, 8, 127, 128, 255] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = read(&damaged);
            }
        }
    }
}
