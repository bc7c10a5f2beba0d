// Linear regression with a conjugate normal-inverse-gamma prior.
data {
  int<lower=1> N;
  int<lower=1> d;
  matrix[N, d] X;
  vector[N] y;
  real<lower=0> prior_scale;     // of the coefficients, in units of the noise's
  real<lower=0> a;               // prior shape of the noise variance
  real<lower=0> b;               // prior scale of the noise variance
}
parameters {
  vector[d] beta;
  real<lower=0> sigma2;
}
model {
  sigma2 ~ inv_gamma(a, b);
  beta ~ normal(0, prior_scale * sqrt(sigma2));
  y ~ normal(X * beta, sqrt(sigma2));
}
