// The Bayesian lasso: linear regression whose coefficients have Laplace priors.
data {
  int<lower=1> n;
  int<lower=1> d;                // covariates
  matrix[n, d] X;
  vector[n] y;
}
parameters {
  real alpha;
  vector[d] beta;
  real<lower=0> sigma2;          // variance of the noise
  vector<lower=0>[d] tau2;       // variances of the coefficients, in units of the noise's
  real<lower=0> lambda;          // penalty
}
model {
  alpha ~ cauchy(0, 10);
  sigma2 ~ inv_gamma(0.5, 0.5);
  lambda ~ cauchy(0, 1);
  tau2 ~ exponential(square(lambda) / 2);
  beta ~ normal(0, sqrt(sigma2 * tau2));
  y ~ normal(alpha + X * beta, sqrt(sigma2));
}
