// A line over calendar years as they are, so that intercept and slope are correlated by -0.99999.
data {
  int<lower=1> n;
  vector[n] year;
  vector[n] y;
}
parameters {
  real alpha;
  real beta;
  real<lower=0> sigma;
}
model {
  alpha ~ normal(0, 1000);
  beta ~ normal(0, 10);
  sigma ~ exponential(1);
  y ~ normal(alpha + beta * year, sigma);
}
