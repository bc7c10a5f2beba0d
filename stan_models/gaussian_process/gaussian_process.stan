// Counts along a line whose log rate is a Gaussian process: squared-exponential covariance with
// unknown length scale and amplitude, and overdispersed counts. Latent values non-centered.
data {
  int<lower=1> N;
  array[N] real x;
  array[N] int<lower=0> y;
}
transformed data {
  real jitter = 1e-6;                      // keeps the covariance positive definite in floats
}
parameters {
  real mu;                                 // mean log rate
  real<lower=0> length_scale;
  real<lower=0> amplitude;
  real<lower=0> phi;                       // variance of a count is m + m^2 / phi
  vector[N] eta;
}
transformed parameters {
  vector[N] f = mu + cholesky_decompose(
    add_diag(gp_exp_quad_cov(x, amplitude, length_scale), jitter)) * eta;
}
model {
  mu ~ normal(1, 2);
  length_scale ~ inv_gamma(4, 6);          // between the spacing and the range of x
  amplitude ~ exponential(1);
  phi ~ gamma(2, 0.1);
  eta ~ std_normal();
  y ~ neg_binomial_2_log(f, phi);
}
