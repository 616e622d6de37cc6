//! Owns the question whether something grows: a straight line through what was held at each rest (least squares).

/// By how much the line through these values rises over all of them. 0 for less than two.
pub fn rise(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let (mut with, mut of) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let distance = index as f64 - middle;
        with += distance * (value - mean);
        of += distance * distance;
    }
    with / of * (count - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_and_noise_does_not() {
        assert!((rise(&[1.0, 3.0, 5.0, 7.0]) - 6.0).abs() < 1e-9);
        assert!((rise(&[7.0, 5.0]) + 2.0).abs() < 1e-9);
        assert!(rise(&[5.0, 9.0, 9.0, 5.0]).abs() < 1e-9);
        assert!(rise(&[5.0]).abs() < 1e-9 && rise(&[]).abs() < 1e-9);
    }
}
