// Stochastic volatility: the log variance of a return follows an AR(1) process. Non-centered.
data {
  int<lower=2> T;
  vector[T] y;                             // returns with mean zero, in percent
}
parameters {
  real mu;                                 // mean log variance
  real<lower=-1, upper=1> phi;             // persistence
  real<lower=0> sigma;                     // standard deviation of the innovations
  vector[T] eta;                           // innovations, as standard normals
}
transformed parameters {
  vector[T] h = sigma * eta;               // log variances
  h[1] = mu + h[1] / sqrt(1 - square(phi));
  for (t in 2:T) {
    h[t] += mu + phi * (h[t - 1] - mu);
  }
}
model {
  mu ~ normal(0, 2);
  (phi + 1) / 2 ~ beta(20, 1.5);
  sigma ~ exponential(3);
  eta ~ std_normal();
  y ~ normal(0, exp(h / 2));
}
